#!/usr/bin/env bash
# Runs `kustomize build` on a folder, with whatever this machine has.
#
#   manifests/kustomize.sh build manifests/overlays/local     the YAML on stdout
#   manifests/kustomize.sh which                              what would be used
#
# In this order: $KUSTOMIZE, kustomize on PATH, kubectl on PATH, the copy under
# .safescale/tools, and on Debian, unless SAFESCALE_OFFLINE is set, kustomize from
# Debian's own archive: bookworm has none and its kubectl (1.20) is too old, so the
# package of the next release is unpacked under .safescale/tools, never installed.
# The mirror is this machine's own, and apt checks the signature.
#
# Exit codes: 0 done, 4 no usable kustomize here, else kustomize's own.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
tools="${SAFESCALE_TOOLS:-$root/.safescale/tools}"

die() {
  echo "$*" >&2
  exit 4
}

# Runs the `build` of a binary, whichever of the two programs it is.
build_with() {
  case "$(basename "$1")" in
    kustomize*) "$1" build "$2" ;;
    *) "$1" kustomize "$2" ;;
  esac
}

# Tries what our overlays use; Debian's build does not say its version.
usable() {
  [ -n "$1" ] && [ -x "$1" ] || return 1
  local probe works=1
  probe="$(mktemp -d)"
  mkdir "$probe/part"
  cat >"$probe/part/kustomization.yaml" <<'PROBE'
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches: [{target: {kind: ConfigMap}, patch: '[{"op": "add", "path": "/data/c", "value": "d"}]'}]
PROBE
  cat >"$probe/kustomization.yaml" <<'PROBE'
configMapGenerator: [{name: probe, literals: [a=b]}]
generatorOptions: {disableNameSuffixHash: true}
labels: [{pairs: {probe: "1"}, includeSelectors: false}]
components: [part]
PROBE
  build_with "$1" "$probe" 2>/dev/null | grep '^  c: d$' >/dev/null || works=0
  rm -rf "$probe"
  [ "$works" = 1 ]
}

# Unpacks Debian's kustomize without touching the system or its apt lists.
fetch_from_debian() {
  local suite="${SAFESCALE_DEBIAN_SUITE:-trixie}" apt mirror keys
  mirror="$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null |
    grep -v security | head -n 1)" || true
  [ -n "$mirror" ] || mirror="$(grep -rhoE 'https?://[^ ]+/debian/?' /etc/apt/sources.list \
    /etc/apt/sources.list.d 2>/dev/null | grep -v -e snapshot -e security | head -n 1)"
  [ -n "$mirror" ] || die "No Debian mirror in this machine's apt sources."
  keys="$(ls /usr/share/keyrings/debian-archive-keyring.{pgp,gpg} 2>/dev/null | head -n 1)"
  mkdir -p "$tools"
  apt="$(mktemp -d "$tools/apt.XXXXXX")" # two callers at once do not meet
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  echo "deb [signed-by=$keys] $mirror $suite main" >"$apt/sources.list"
  local options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
  {
    apt-get "${options[@]}" update &&
      (cd "$apt" && apt-get "${options[@]}" download kustomize) &&
      dpkg-deb -x "$apt"/kustomize_*.deb "$apt/kustomize"
  } >&2 || {
    rm -rf "$apt"
    die "kustomize of Debian $suite could not be fetched from $mirror."
  }
  rm -rf "$tools/kustomize"
  mv -T "$apt/kustomize" "$tools/kustomize"
  rm -rf "$apt"
}

find_tool() {
  local fetched="$tools/kustomize/usr/bin/kustomize" candidate
  for candidate in "${KUSTOMIZE:-}" "$(command -v kustomize || true)" \
    "$(command -v kubectl || true)" "$fetched"; do
    if usable "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  [ -z "${SAFESCALE_OFFLINE:-}" ] && [ -e /etc/debian_version ] &&
    command -v dpkg-deb >/dev/null ||
    die "No kustomize here: install kustomize 5, or kubectl 1.27 or later."
  fetch_from_debian
  usable "$fetched" || die "Debian's kustomize in $fetched does not run here."
  echo "$fetched"
}

[ $# -ge 1 ] || die "Usage: manifests/kustomize.sh build FOLDER | which"
tool="$(find_tool)"
case "$1" in
  which) echo "$tool" ;;
  build) build_with "$tool" "${2:?a folder is needed}" ;;
  *) die "Usage: manifests/kustomize.sh build FOLDER | which" ;;
esac
