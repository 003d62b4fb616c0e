#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# usage: check.sh INCLUDE_DIR JOBS hpp|cuh COMPILER FLAG...
# Compiles every header of one kind alone, included twice, and prints the messages of those that fail.
# Exit status: 0 if all compile, 1 if not.
set -euo pipefail

root=$1 jobs=$2 kind=$3
shift 3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check_one() {
  local work=$1 header=$2
  shift 2
  local stem=$work/${header//\//_}
  printf '#include <%s>\n#include <%s>\n' "$header" "$header" > "$stem.cpp"
  if ! "$@" "$stem.cpp" > "$stem.log" 2>&1; then
    { echo "FAILED $header"; head -n 40 "$stem.log"; echo; } > "$stem.failed"
  fi
}
export -f check_one

mapfile -t headers < <(cd "$root" && find graft -name "*.$kind" | LC_ALL=C sort)
if [ "${#headers[@]}" -eq 0 ]; then
  echo "no .$kind below $root/graft"
  exit 1
fi
printf '%s\0' "${headers[@]}" |
  xargs -0 -P "$jobs" -I '{}' bash -c 'check_one "$@"' check "$work" '{}' "$@"

failures=$(find "$work" -name '*.failed' | LC_ALL=C sort)
if [ -n "$failures" ]; then
  # shellcheck disable=SC2086
  cat $failures
  echo "$(echo "$failures" | wc -l) of ${#headers[@]} headers do not compile alone with $1"
  exit 1
fi
echo "${#headers[@]} headers compile alone with $1"
