#!/bin/sh
# Makes sure that a container engine answers; says what it did, or why it did not.
#
# Where a Docker daemon answers that can build, it does nothing. As root on Debian it
# installs Docker, mmdebstrap (for base images without a registry) and a registry for
# the tests from Debian's packages, and starts the daemon on its default socket.
# Anywhere else it prints one line that starts with "skipped:". Only a failed step is
# an error.
set -eu

packages="docker.io iptables mmdebstrap docker-registry"
log=/var/log/dockerd.log

answers() { docker info >/dev/null 2>&1 || /usr/bin/docker info >/dev/null 2>&1; }
skip() { echo "skipped: $*"; exit 0; }
fail() { echo "$*" >&2; exit 1; }

installed() {
  for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
      return 1
  done
}

install_packages() {
  if installed; then return; fi
  echo "engines: installing $packages"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >/dev/null || fail "apt-get update failed: is a mirror reachable?"
  # shellcheck disable=SC2086  one word a package
  apt-get install -qq -y --no-install-recommends $packages >/dev/null ||
    fail "apt-get could not install $packages; its last lines say why."
}

start_daemon() {
  if [ -d /run/systemd/system ]; then
    systemctl start docker || fail "systemd could not start docker: journalctl -u docker."
  else
    # A session of its own, without this shell's files: it outlives make.
    echo "engines: starting dockerd, log in $log"
    # Of a daemon that was killed a number stays, which some other process may have now.
    pidof dockerd >/dev/null || rm -f /var/run/docker.pid
    setsid dockerd >"$log" 2>&1 </dev/null 3>&- 4>&- &
  fi
  for _ in $(seq 60); do
    if answers; then return; fi
    sleep 0.5
  done
  tail -n 3 "$log" >&2 || true
  fail "dockerd does not answer after 30 s; $log says why."
}

# Two calls at once would install and start everything twice.
if [ "${1:-}" != --locked ] && [ "$(id -u)" = 0 ] && command -v flock >/dev/null; then
  exec flock /run/safescale-engines.lock sh "$0" --locked
fi

if answers && { command -v mmdebstrap >/dev/null || [ ! -f /etc/debian_version ]; }; then
  echo "engines: docker answers, nothing to do"
  exit 0
fi
[ "$(id -u)" = 0 ] || skip "no container engine answers, and installing one takes root."
command -v apt-get >/dev/null && [ -f /etc/debian_version ] ||
  skip "no container engine answers, and only Debian's is installed by this script."
install_packages
answers || start_daemon
echo "engines: docker $(docker info --format '{{.ServerVersion}}') answers"
