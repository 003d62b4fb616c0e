#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# usage: check.sh INCLUDE_DIR JOBS alone|together hpp|cuh COMPILER FLAG...
# alone: compiles every header of one kind alone, included twice, and prints the messages of those that fail. together: all
# in one file, in order and in reverse order; for a second compiler, to which a forgotten include looks as it did to the first.
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

check_one() {
  local kind=$1 work=$2 header=$3
  shift 3
  local stem source
  stem=$work/${header//\//_}
  # nvcc goes by the suffix, and writes an object
  if [ "$kind" = cuh ]; then
    source=$stem.cu
    set -- "$@" -o "$stem.o"
  else
    source=$stem.cpp
  fi
  printf '#include <%s>\n#include <%s>\n' "$header" "$header" > "$source"
  if ! "$@" "$source" > "$stem.log" 2>&1; then
    { echo "FAILED $header"; head -n 40 "$stem.log"; echo; } > "$stem.failed"
  fi
  rm -f "$stem.o"
}
export -f check_one

mapfile -t headers < <(cd "$root" && find graft -name "*.$kind" | LC_ALL=C sort)
if [ "${#headers[@]}" -eq 0 ]; then
  echo "no .$kind below $root/graft"
  exit 1
fi
if [ "$way" = together ]; then
  printf '#include <%s>\n' "${headers[@]}" > "$work/forward.cpp"
  tac "$work/forward.cpp" > "$work/backward.cpp"
  failed=0
  for order in forward backward; do
    "$@" "$work/$order.cpp" > "$work/$order.log" 2>&1 || { head -n 60 "$work/$order.log"; failed=1; }
  done
  if [ "$failed" -eq 0 ]; then echo "${#headers[@]} headers compile together with $1"; fi
  exit "$failed"
fi
printf '%s\0' "${headers[@]}" |
  xargs -0 -P "$jobs" -I '{}' bash -c 'kind=$1 work=$2 header=$3; shift 3; check_one "$kind" "$work" "$header" "$@"' \
    check "$kind" "$work" '{}' "$@"

failures=$(find "$work" -name '*.failed' | LC_ALL=C sort)
if [ -n "$failures" ]; then
  # shellcheck disable=SC2086
  cat $failures
  echo "$(echo "$failures" | wc -l) of ${#headers[@]} headers do not compile alone with $1"
  exit 1
fi
echo "${#headers[@]} headers compile alone with $1"
