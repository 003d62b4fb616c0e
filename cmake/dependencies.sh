#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# The one list of the packages that graft needs, and their installation on Debian and its kin.
#
#   bash cmake/dependencies.sh            what building and running the examples needs
#   bash cmake/dependencies.sh --tests    what the tests need besides
#   bash cmake/dependencies.sh --list     the names of all of them, and nothing else
#
# Installs what is missing, with apt as root or with sudo; elsewhere says what to install and stops. GRAFT_SKIP_DEPENDENCIES=1
# takes it that all is there. The CUDA Toolkit is used where it is found, and never installed.
#
# Standard output is for the shell that called: nothing, or a line 'export GRAFT_DATA_ROOT=FOLDER' when the manual pages of the
# default domains lie below FOLDER/usr/share/man, and not below /usr/share/man. Messages go to standard error.
set -euo pipefail

build_packages=(
  build-essential cmake ninja-build ccache
  libboost-dev            # Hana; also the C++ domain
  libopenblas-openmp-dev  # fp32 and fp64 products
  libdnnl-dev             # bf16 products
  nlohmann-json3-dev libcli11-dev zlib1g-dev
  gnuplot-nox             # plots
)
manual_packages=(manpages manpages-dev manpages-fr manpages-fr-dev)
data_packages=("${manual_packages[@]}" metamath-databases)
test_packages=(
  catch2 clang libomp-dev
  libboost-context-dev    # the threads of the emulated CUDA device
)

say() { echo "$*" >&2; }

packages=("${build_packages[@]}" "${data_packages[@]}")
case ${1:-} in
  '') ;;
  --tests) packages+=("${test_packages[@]}") ;;
  --list) printf '%s\n' "${packages[@]}" "${test_packages[@]}"; exit 0 ;;
  *) say "dependencies.sh: unknown argument '$1', expected --tests, --list or nothing"; exit 2 ;;
esac
cached_pages=${XDG_CACHE_HOME:-$HOME/.cache}/graft/data
if [ "${GRAFT_SKIP_DEPENDENCIES:-0}" = 1 ]; then
  if [ -d "$cached_pages/usr/share/man" ]; then printf 'export GRAFT_DATA_ROOT=%q\n' "$cached_pages"; fi
  exit 0
fi

if ! command -v apt-get > /dev/null || ! command -v dpkg-query > /dev/null; then
  say "graft needs these packages (Debian's names); install what they are called here:"
  say "  ${packages[*]}"
  say "There is no apt on this system to install them with. Set GRAFT_SKIP_DEPENDENCIES=1 once they are there."
  exit 1
fi

# ---- packages ------------------------------------------------------------------------------------
missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2> /dev/null || true)
  if [ "$status" != installed ]; then missing+=("$package"); fi
done

as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi

updated=no
update_lists() {
  if [ $updated = yes ]; then return; fi
  "${as_root[@]}" apt-get update -qq >&2
  updated=yes
}

if [ "${#missing[@]}" -gt 0 ]; then
  if [ "${#as_root[@]}" -gt 0 ] && ! command -v sudo > /dev/null; then
    say "graft needs these packages, and this user cannot install them. As root:"
    say "  apt-get update && apt-get install --no-install-recommends ${missing[*]}"
    exit 1
  fi
  say "installing ${missing[*]}"
  update_lists
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "${missing[@]}" >&2
fi

# ---- manual pages --------------------------------------------------------------------------------
# Small images leave out what lies below /usr/share/man when they install a package. Then the pages are unpacked
# into a folder of the user.
has_pages() { compgen -G "$1/usr/share/man/man2/*" > /dev/null && compgen -G "$1/usr/share/man/fr/man2/*" > /dev/null; }

if ! has_pages ''; then
  data_root=$cached_pages
  if ! has_pages "$data_root"; then
    say "this system was set up without manual pages: unpacking ${manual_packages[*]} into $data_root"
    mkdir -p "$data_root"
    work=$(mktemp -d "$data_root/unpack.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    download() { (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "${manual_packages[@]}" >&2); }
    if ! download 2> /dev/null; then
      if [ "${#as_root[@]}" -eq 0 ] || command -v sudo > /dev/null; then update_lists; fi
      download
    fi
    for archive in "$work"/*.deb; do dpkg-deb --extract "$archive" "$work/root" >&2; done
    cp -R "$work/root/." "$data_root"
    if ! has_pages "$data_root"; then
      say "dependencies.sh: expected manual pages below $data_root/usr/share/man after unpacking, found none"
      exit 1
    fi
  fi
  printf 'export GRAFT_DATA_ROOT=%q\n' "$data_root"
fi
