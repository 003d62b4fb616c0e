#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# usage: check.sh INCLUDE_DIR JOBS alone|together hpp|cuh COMPILER FLAG...
# alone: compiles every header of one kind alone, included twice, and prints the messages of those that fail. together: all
# in one file, in order and (but for nvcc, which is slow) in reverse order.
# Exit status: 0 if all compile, 1 if not, 77 if there is no such compiler.
set -euo pipefail

root=$1 jobs=$2 way=$3 kind=$4
shift 4
if ! command -v "$1" > /dev/null; then
  echo "skipped: no compiler ${1:-} here"
  exit 77
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# nvcc goes by the suffix, and writes an object.
suffix=cpp
if [[ $1 == *nvcc ]]; then
  suffix=cu
  set -- "$@" -c -o "$work/object.o"
fi

check_one() {
  local suffix=$1 work=$2 header=$3
  shift 3
  local stem=$work/${header//\//_}
  printf '#include <%s>\n#include <%s>\n' "$header" "$header" > "$stem.$suffix"
  if ! "$@" "$stem.$suffix" > "$stem.log" 2>&1; then
    { echo "FAILED $header"; head -n 40 "$stem.log"; echo; } > "$stem.failed"
  fi
}
export -f check_one

mapfile -t headers < <(cd "$root" && find graft -name "*.$kind" | LC_ALL=C sort)
if [ "${#headers[@]}" -eq 0 ]; then
  echo "no .$kind below $root/graft"
  exit 1
fi
if [ "$way" = together ]; then
  orders=(forward)
  if [ "$suffix" = cpp ]; then orders+=(backward); fi
  printf '#include <%s>\n' "${headers[@]}" > "$work/forward.$suffix"
  tac "$work/forward.$suffix" > "$work/backward.$suffix"
  failed=0
  for order in "${orders[@]}"; do
    "$@" "$work/$order.$suffix" > "$work/$order.log" 2>&1 || { head -n 60 "$work/$order.log"; failed=1; }
  done
  if [ "$failed" -eq 0 ]; then echo "${#headers[@]} headers compile together with $1"; fi
  exit "$failed"
fi
printf '%s\0' "${headers[@]}" |
  xargs -0 -P "$jobs" -I '{}' bash -c 'suffix=$1 work=$2 header=$3; shift 3; check_one "$suffix" "$work" "$header" "$@"' \
    check "$suffix" "$work" '{}' "$@"

failures=$(find "$work" -name '*.failed' | LC_ALL=C sort)
if [ -n "$failures" ]; then
  # shellcheck disable=SC2086
  cat $failures
  echo "$(echo "$failures" | wc -l) of ${#headers[@]} headers do not compile alone with $1"
  exit 1
fi
echo "${#headers[@]} headers compile alone with $1"
