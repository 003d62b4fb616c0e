#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# usage: check.sh INCLUDE_DIR JOBS hpp|cuh COMPILER FLAG...
# Compiles every header of one kind alone, included twice, and prints the messages of those that fail. Clang reads what many
# of them reach of other libraries once: whoever includes, directly or not, one of the headers in `common` sees the foreign
# headers that it reaches already parsed. A header that forgets one of these forgets what it gets in any case.
# Exit status: 0 if all compile, 1 if not.
set -euo pipefail

root=$1 jobs=$2 kind=$3
shift 3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check_one() {
  local work=$1 header=$2
  shift 2
  local stem=$work/${header//\//_} parsed=() reached
  if reached=$(grep -s -m 1 -xF -f "$work/parsed" "$stem.reached"); then parsed=(-include-pch "$work/${reached//\//_}.pch"); fi
  printf '#include <%s>\n#include <%s>\n' "$header" "$header" > "$stem.cpp"
  if ! "$@" -fsyntax-only ${parsed[@]+"${parsed[@]}"} "$stem.cpp" > "$stem.log" 2>&1; then
    { echo "FAILED $header"; head -n 40 "$stem.log"; echo; } > "$stem.failed"
  fi
}
export -f check_one

mapfile -t headers < <(cd "$root" && find graft -name "*.$kind" | LC_ALL=C sort)
if [ "${#headers[@]}" -eq 0 ]; then
  echo "no .$kind below $root/graft"
  exit 1
fi

# FILE.reached: what it includes, directly or not, each once, in the order of `common` where that names it, then the rest.
common=(graft/io/json.hpp graft/io/domain.hpp graft/core/parameter_tree.hpp graft/core/error.hpp)
(cd "$root" && find graft -type f -exec grep -HoE '^ *# *include *<[^>]+>' {} +) | sed -E 's/: *# *include *</ /; s/>$//' |
  awk -v work="$work" -v common="${common[*]}" '
    { includes[$1] = includes[$1] " " $2 }
    function visit(file,   list, count, i) {
      if (file in seen) return
      seen[file] = 1
      count = split(includes[file], list, " ")
      for (i = 1; i <= count; ++i) visit(list[i])
      order[++reached] = file
    }
    END {
      common_count = split(common, first, " ")
      for (file in includes) {
        split("", seen); reached = 0
        visit(file)
        output = file; gsub("/", "_", output); output = work "/" output ".reached"
        for (i = 1; i <= common_count; ++i) if ((first[i]) in seen) print first[i] > output
        for (i = 1; i <= reached; ++i) print order[i] > output
        close(output)
      }
    }'
: > "$work/parsed"
if "$1" --version | grep -q clang; then
  for header in "${common[@]}"; do
    stem=$work/${header//\//_}
    grep -v '^graft/' "$stem.reached" | sed 's/.*/#include <&>/' > "$stem.foreign.hpp"
    "$@" -x c++-header "$stem.foreign.hpp" -o "$stem.pch" && echo "$header" >> "$work/parsed"
  done
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
