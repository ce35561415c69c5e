#!/bin/sh
# Makes a base image with the role of python:3.11-slim from Debian's packages alone,
# for machines that reach no container registry: base.sh NAME [ENGINE]
#
# Needs root, Debian's mmdebstrap and the apt sources of this machine, which must be
# Debian's: which mirror it is, only they say.
set -eu
name=$1
engine=${2:-docker}

sources=$(grep -lsE '^(URIs: |deb ).*/debian/?( |$)' /etc/apt/sources.list \
  /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list | head -n 1 || true)
[ -n "$sources" ] || { echo "No Debian mirror in /etc/apt/sources.list*." >&2; exit 2; }

# merged-usr and usr-is-merged: else the package that merges it brings all of Perl.
# libstdc++6 is what the packages with C++ need; python:3.11-slim has it by apt.
mmdebstrap --quiet --variant=essential \
  --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
  --include=usr-is-merged,ca-certificates,libstdc++6,netbase,python3,python3-venv,tzdata \
  --dpkgopt=path-exclude=/usr/share/man/* \
  --dpkgopt=path-exclude=/usr/share/info/* \
  --dpkgopt=path-exclude=/usr/share/locale/* \
  --dpkgopt=path-exclude=/usr/share/doc/* \
  --dpkgopt=path-include=/usr/share/doc/*/copyright \
  bookworm - "$sources" |
  "$engine" import --change 'CMD ["python3"]' --message "Debian bookworm, Python" - "$name"
