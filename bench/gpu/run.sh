#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# Everything that is known of graft on the GPU at hand, in one command of under 8 minutes:
#
#   bash bench/gpu/run.sh                     builds into build/ what is missing there, then all parts but the last two
#   bash bench/gpu/run.sh tests grouped moe   these parts
#   bash bench/gpu/run.sh sanitizers          compute-sanitizer over the small CUDA tests
#
# Parts: ceilings (of the card), tests (of CUDA), grouped, moe, steps, attention, cross_entropy, adamw, router,
# permutation (each beside its PyTorch peers, bench/gpu/peers), job (the main job: smoke, then as much of the full
# preset as there is time for; the same command goes on with it), full (that alone), sanitizers.
#
#   BIN=FOLDER      programs built elsewhere, and their libraries in FOLDER/lib; or the archive that pack.sh makes
#   RESULTS=FOLDER  where the results go (bench/results)      LIMIT=SECONDS  for everything together (470)
#   PYTHON=PROGRAM  the Python that has PyTorch (python3)     RUN=FOLDER     of the full preset (runs/gpu-full)
#
# Writes RESULTS/<date>-gpu-<card>/results.txt and results.json (of some parts alone: with their names behind it): times,
# score = floor / time, ratio = peer's time / graft's, checks against fp64. Exit status 0 only if every part ran, every
# test and check passed and no part of graft gave an error; a peer that is missing or slower is no failure.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root" || exit 1
bin=${BIN:-build/bin}
results=${RESULTS:-bench/results}
python=${PYTHON:-python3}
limit=${LIMIT:-470}
run_folder=${RUN:-runs/gpu-full}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

measured=(grouped moe steps attention cross_entropy adamw router permutation)
default=(ceilings tests "${measured[@]}" job)
wanted=("$@")
if [ $# -eq 0 ]; then wanted=("${default[@]}"); fi
for part in "${wanted[@]}"; do
  case " ${default[*]} full sanitizers " in
    *" $part "*) ;;
    *) echo "bench/gpu/run.sh: expected some of ${default[*]} full sanitizers, got $part"; exit 2 ;;
  esac
done
wants() { case " ${wanted[*]} " in *" $1 "*) return 0 ;; *) return 1 ;; esac }

# ---- programs ------------------------------------------------------------------------------------
programs=(gpu_report)
if wants tests || wants sanitizers; then programs+=(test_cuda); fi
if wants job || wants full; then programs+=(branch_train_mix); fi

if [ -z "${BIN:-}" ]; then
  environment=$(bash cmake/dependencies.sh --tests) || exit 1
  eval "$environment"
  if [ ! -f build/CMakeCache.txt ]; then
    cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGRAFT_CUDA=ON || exit 1
  fi
  cmake --build build --target "${programs[@]}" --parallel "$(nproc)" || exit 1
elif [ -f "$bin" ]; then  # an archive
  mkdir "$scratch/bin"
  tar -xf "$bin" -C "$scratch/bin" 2> /dev/null || "$python" -m tarfile -e "$bin" "$scratch/bin" || exit 1
  chmod +x "$scratch"/bin/* 2> /dev/null
  bin=$scratch/bin
fi

# Libraries: those beside the programs, CUDA's own, and those that come with PyTorch; for graft's programs alone.
libraries=$bin/lib
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2> /dev/null)
for folder in /usr/local/cuda/lib64 "$packages"/nvidia/*/lib; do
  if [ -d "$folder" ]; then libraries=$libraries:$folder; fi
done
own=(env "LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")

for program in "${programs[@]}"; do
  if [ ! -x "$bin/$program" ]; then
    echo "bench/gpu/run.sh: expected the program $bin/$program, found none; build with -DGRAFT_CUDA=ON"
    exit 1
  fi
  missing=$("${own[@]}" ldd "$bin/$program" 2> /dev/null | sed -n 's/ => not found.*//p' | tr -d '\t' | tr '\n' ' ')
  if [ -n "$missing" ]; then
    echo "bench/gpu/run.sh: $bin/$program needs libraries that are not here: $missing"
    exit 1
  fi
done

# ---- parts ---------------------------------------------------------------------------------------
status=0
report=$scratch/report.txt
lines=$scratch/lines.jsonl
mkdir "$scratch/data"
touch "$lines"

left() { echo $((limit - SECONDS)); }
smaller() { echo $(($1 < $2 ? $1 : $2)); }

# part TITLE SECONDS COMMAND...: runs the command, at most so long and no longer than there is time, and says how it went.
# Its lines of results go to a file, the rest is shown. Sets code. 124: out of time; 125: there was no time to begin.
part() {
  local title=$1 seconds start=$SECONDS
  seconds=$(smaller "$2" "$(left)")
  shift 2
  echo
  if [ "$seconds" -lt 5 ]; then
    echo "== $title: not run, the time is up"
    code=125
    return
  fi
  echo "== $title"
  timeout --kill-after=10 "$seconds" "$@" 2>&1 |
    awk -v lines="$lines" '/^\{"part"/ { print >> lines; next } { print; fflush() }'
  code=${PIPESTATUS[0]}
  echo "== $title: exit status $code$([ "$code" -eq 124 ] && echo ' (out of time)'), $((SECONDS - start)) s"
}
must() {
  part "$@"
  if [ "$code" -ne 0 ]; then status=1; fi
}

# measure NAME SECONDS SECONDS SECONDS: a part beside its peers; at most so long for graft, all peers, one peer.
measure() {
  if ! wants "$1"; then return; fi
  must "$1" "$2" "${own[@]}" "$bin/gpu_report" "$1" --data "$scratch/data"
  # What peers lack or do wrong is in their lines.
  part "$1, peers" "$3" env PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 "$python" bench/gpu/peers "$1" \
    --shapes "$scratch/shapes.jsonl" --data "$scratch/data" --limit "$4"
  "$python" bench/gpu/table.py "$lines" --part "$1" 2>&1
}

# Text for the main job where the packages of the default domains are not installed: what the repository itself has.
domains=()
if [ ! -d "${GRAFT_DATA_ROOT:-}/usr/share/metamath" ] || [ ! -d "${GRAFT_DATA_ROOT:-}/usr/include/boost" ]; then
  domains=(--domain headers=include/graft --domain tests=tests --domain programs=examples)
fi
main_job=("${own[@]}" "$bin/branch_train_mix" --device cuda ${domains[@]+"${domains[@]}"})
full_job() {
  part "main job, full preset" "$(left)" "${main_job[@]}" --preset full --out "$run_folder"
  if [ "$code" -eq 124 ] || [ "$code" -eq 125 ]; then
    echo "not finished in the time that was left; 'bash bench/gpu/run.sh full' goes on from $run_folder"
  elif [ "$code" -ne 0 ]; then
    status=1
  fi
}

# Every small test under every tool, a quarter of the time for each tool.
sanitizers() {
  local tool=/usr/local/cuda/bin/compute-sanitizer kind name end clean failed seconds
  if command -v compute-sanitizer > /dev/null; then tool=compute-sanitizer; fi
  if ! command -v "$tool" > /dev/null; then
    echo "sanitizers: skipped, there is no compute-sanitizer here"
    return
  fi
  "${own[@]}" "$bin/test_cuda" --list-test-names-only > "$scratch/tests.txt"
  # Whole models and training take too long under a tool and launch the kernels that the smaller tests launch.
  grep -vE "${SKIPPED:-models|training|forests|stitched|captured}" "$scratch/tests.txt" > "$scratch/small.txt"
  local kinds=()
  read -ra kinds <<< "${TOOLS:-memcheck racecheck initcheck synccheck}"
  for kind in "${kinds[@]}"; do
    end=$((SECONDS + $(left) / ${#kinds[@]})) clean=0 failed=0
    echo "== $kind"
    while IFS= read -r name; do
      name=$(sed 's/^ *//; s/ *$//' <<< "$name")
      if [ -z "$name" ]; then continue; fi
      seconds=$((end - SECONDS))
      if [ "$seconds" -lt 5 ]; then
        echo "$kind: not run, out of time: $name"
        continue
      fi
      timeout --kill-after=10 "$seconds" "${own[@]}" "$tool" --tool "$kind" --error-exitcode 9 "$bin/test_cuda" "${name//,/\\,}" \
        > "$scratch/tool.txt" 2>&1
      code=$?
      if [ $code -eq 0 ]; then
        clean=$((clean + 1))
      elif [ $code -eq 124 ]; then
        echo "$kind: out of time in: $name"
      else
        failed=$((failed + 1)) status=1
        echo "$kind: exit status $code: $name"
        grep -E '=========|FAILED' "$scratch/tool.txt" | head -n 25
      fi
    done < "$scratch/small.txt"
    echo "$kind: $clean tests clean, $failed not"
  done
}

# The revision of the programs: pack.sh leaves it beside them.
if [ -f "$bin/revision" ]; then
  revision=$(cat "$bin/revision")
else
  revision=$(git rev-parse --short HEAD 2> /dev/null || echo '(no revision)')
  if [ -n "$(git status --porcelain 2> /dev/null)" ]; then revision="$revision with changes"; fi
fi
date=$(date -u +%Y-%m-%dT%H:%MZ)
about="{\"revision\": \"$revision\", \"date\": \"$date\", \"parts\": \"${wanted[*]}\"}"

everything() {
  echo "graft $revision, $date: ${wanted[*]}"
  nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader 2> /dev/null
  "$python" -c 'import torch; print("torch", torch.__version__, "cuDNN", torch.backends.cudnn.version())' 2> /dev/null ||
    echo "no PyTorch here ($python): graft is measured without peers"
  "$python" -c 'import transformers; print("transformers", transformers.__version__)' 2> /dev/null
  "${own[@]}" "$bin/gpu_report" shapes > "$scratch/shapes.jsonl" || status=1
  # Always: without a card's name there is nothing to report.
  must "card and ceilings" 60 "${own[@]}" "$bin/gpu_report" ceilings
  grep '"part":"ceilings"' "$lines"
  if ! grep -q '"name":"card"' "$lines"; then return 1; fi
  if wants tests; then must "CUDA tests" 150 "${own[@]}" "$bin/test_cuda"; fi
  measure grouped 25 40 20
  measure moe 30 120 45
  measure steps 90 130 90
  measure attention 20 30 20
  measure cross_entropy 15 45 30
  measure adamw 15 20 15
  measure router 10 30 20
  measure permutation 10 15 15
  if wants job; then
    must "main job, smoke preset" 60 "${main_job[@]}" --preset smoke --out "$scratch/smoke"
  fi
  if wants job || wants full; then full_job; fi
  if wants sanitizers; then sanitizers; fi
  echo
  "$python" bench/gpu/table.py "$lines" --summary --json "$scratch/results.json" --about "$about" 2>&1 || status=1
  echo
  if [ $status -eq 0 ]; then echo "$SECONDS s; all is well"; else echo "$SECONDS s; NOT all is well, see above"; fi
  return $status
}

everything > >(tee "$report") 2>&1
code=$?
sleep 0.5  # tee writes the last lines
card=$(sed -nE 's/.*"name":"card","card":"([^"]*)".*/\1/p' "$lines" | head -n 1 | tr -cs 'A-Za-z0-9\n' '-' | sed 's/-*$//')
if [ -z "$card" ]; then
  echo "bench/gpu/run.sh: no GPU could be used, nothing was written"
  exit 1
fi
folder=$results/$(date -u +%Y-%m-%d)-gpu-$card
if [ $# -gt 0 ]; then folder=$folder-$(IFS=-; echo "${wanted[*]}"); fi
mkdir -p "$folder"
cp "$report" "$folder/results.txt"
if [ -f "$scratch/results.json" ]; then cp "$scratch/results.json" "$folder/"; else cp "$lines" "$folder/results.jsonl"; fi
for preset in smoke full; do
  source=$([ $preset = smoke ] && echo "$scratch/smoke" || echo "$run_folder")
  if { wants job || wants full; } && [ -f "$source/results.txt" ]; then
    cp "$source/results.txt" "$folder/job-$preset.txt"
  fi
done
echo "written: $folder"
exit $code
