#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# Everything that is known of graft on the GPU at hand, in one command of under 8 minutes:
#
#   bash bench/gpu/run.sh                             builds into build/ what is missing there, then runs it
#   BIN=<folder> RESULTS=<folder> bash bench/gpu/run.sh   runs programs built elsewhere; where the results file goes
#
# Card and ceilings, the CUDA tests, training steps, and the main job's smoke preset on the GPU. What it prints goes into
# bench/results/<date>-<card>.txt too. Exit status 0 only if every part ran and succeeded.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root" || exit 1
bin=${BIN:-build/bin}
results=${RESULTS:-bench/results}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

programs=(gpu_report test_cuda branch_train_mix)
if [ -z "${BIN:-}" ]; then
  environment=$(bash cmake/dependencies.sh --tests) || exit 1
  eval "$environment"
  if [ ! -f build/CMakeCache.txt ]; then
    cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGRAFT_CUDA=ON || exit 1
  fi
  cmake --build build --target "${programs[@]}" --parallel "$(nproc)" || exit 1
fi
for program in "${programs[@]}"; do
  if [ ! -x "$bin/$program" ]; then
    echo "bench/gpu/run.sh: expected the program $bin/$program, found none; build with -DGRAFT_CUDA=ON"
    exit 1
  fi
  missing=$(ldd "$bin/$program" | sed -n 's/ => not found.*//p' | tr -d '\t' | tr '\n' ' ')
  if [ -n "$missing" ]; then
    echo "bench/gpu/run.sh: $bin/$program needs libraries that are not here: $missing"
    exit 1
  fi
done

status=0
report=$scratch/report.txt

# part TITLE SECONDS COMMAND...: runs the command, at most so long, and notes how it went.
part() {
  local title=$1 limit=$2 start=$SECONDS code
  shift 2
  echo
  echo "== $title"
  timeout "$limit" "$@" 2>&1
  code=$?
  if [ $code -ne 0 ]; then status=1; fi
  echo "== $title: exit status $code$([ $code -eq 124 ] && echo ' (out of time)'), $((SECONDS - start)) s"
}

# Text for the main job where the Debian packages of the default domains are not installed: what the repository itself has.
domains=()
if [ ! -d "${GRAFT_DATA_ROOT:-}/usr/share/metamath" ] || [ ! -d "${GRAFT_DATA_ROOT:-}/usr/include/boost" ]; then
  domains=(--domain headers=include/graft --domain tests=tests --domain programs=examples)
fi

everything() {
  echo "graft $(git rev-parse --short HEAD 2> /dev/null || echo '(no revision)')$([ -n "$(git status --porcelain 2> /dev/null)" ] && echo ' with changes'), $(date -u +%Y-%m-%dT%H:%MZ)"
  part "card and ceilings" 60 "$bin/gpu_report" ceilings
  part "CUDA tests" 180 "$bin/test_cuda"
  part "training steps" 120 "$bin/gpu_report" steps
  part "main job, smoke preset" 100 "$bin/branch_train_mix" --preset smoke --device cuda --out "$scratch/run" ${domains[@]+"${domains[@]}"}
  if [ -f "$scratch/run/results.json" ]; then
    echo
    echo "results.json"
    cat "$scratch/run/results.json"
  fi
  return $status
}

everything > >(tee "$report") 2>&1
code=$?
wait
card=$(sed -nE 's/^card +([^,]*),.*/\1/p' "$report" | head -n 1 | tr -cs 'A-Za-z0-9\n' '-' | sed 's/-*$//')
if [ -z "$card" ]; then
  echo "bench/gpu/run.sh: no GPU could be used, nothing was written"
  exit 1
fi
mkdir -p "$results"
file=$results/$(date -u +%Y-%m-%d)-$card.txt
cp "$report" "$file"
echo "written: $file"
exit $code
