#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is missing, builds everything and runs all tests, in two parts. The first, in build-tests/, is by g++: the
# kernels (backend, ops) as their users compile them, the programs and their tests, CUDA (for the device, and emulated on the
# CPU), headers, what must not compile, projects that use graft. The second, in build-asan/, is every CPU test with
# AddressSanitizer and UndefinedBehaviorSanitizer, by clang. Compiling is most of the time, so a test above the kernels is
# compiled once, the programs with -O1 and -O0; benchmarks are only checked to compile.
# The last line counts the tests of both parts.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
environment=$(bash "$root/cmake/dependencies.sh" --tests) || exit 1
eval "$environment"
cd "$root" || exit 1

processors=$(nproc)
# Tests run side by side: a waiting thread gives its core away, and a large machine is not filled by one test.
export OMP_WAIT_POLICY=passive
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((processors < 4 ? processors : 4))}
export UBSAN_OPTIONS=print_stacktrace=1
export LSAN_OPTIONS="suppressions='$root/tests/leaks.txt':print_suppressions=0"

passed=0 failed=0 skipped=0
broken=()

# configure FOLDER ARGUMENT...
configure() {
  local folder=$1
  shift
  local generator=()
  if [ ! -f "$folder/CMakeCache.txt" ]; then generator=(-G Ninja); fi
  cmake -S . -B "$folder" "${generator[@]}" -DGRAFT_BUILD_TESTS=ON "$@"
}

# run_tests NAME FOLDER: builds everything configured there, runs CTest, adds to the counts. What does not build counts as one
# failed test, beside those that CTest then cannot run.
run_tests() {
  local name=$1 folder=$2 report=$root/$2/ctest.xml
  local keep_going=(-k)
  if [ -f "$folder/build.ninja" ]; then keep_going=(-k 0); fi
  if ! cmake --build "$folder" --parallel "$processors" -- "${keep_going[@]}"; then
    broken+=("$name: the build failed")
    failed=$((failed + 1))
  fi
  rm -f "$report"
  # One more than there are processors: some tests wait for processes of theirs.
  if ! ctest --test-dir "$folder" --output-on-failure --no-tests=error --parallel $((processors + 1)) --output-junit "$report"; then
    broken+=("$name: ctest failed")
  fi
  local summary total
  summary=$(grep -m 1 -A 8 '<testsuite ' "$report" 2> /dev/null | tr '\n\t' '  ')
  count() { sed -nE "s/.*[[:space:]]$1=\"([0-9]+)\".*/\1/p" <<< "$summary" | head -n 1; }
  total=$(count tests)
  if [ -z "$total" ]; then
    broken+=("$name: ctest left no report")
    failed=$((failed + 1))
    return
  fi
  local now_failed now_skipped
  now_failed=$(count failures)
  now_skipped=$(($(count skipped) + $(count disabled)))
  passed=$((passed + total - now_failed - now_skipped))
  failed=$((failed + now_failed))
  skipped=$((skipped + now_skipped))
}

# Where there is no GPU to run on, nvcc compiles the programs alone, in bf16, with the usual policies and for one architecture;
# the tests of CUDA run on the emulated device.
cuda=(-DGRAFT_CUDA=AUTO)
if [ ! -e /dev/nvidia0 ]; then
  cuda+=(-DGRAFT_TEST_CUDA=OFF -DGRAFT_CUDA_HOST_FLAGS=-O0 -DGRAFT_EXAMPLES_CUDA_FP32=OFF
    -DGRAFT_EXAMPLES_CUDA_POLICIES=usual -DGRAFT_CUDA_ARCHITECTURES=90a-real)
fi
at_once=-DGRAFT_TEST_FILES_AT_ONCE=6
configure build-tests -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG" -DGRAFT_THIN_FLAGS=-O0 \
  -DCMAKE_COMPILE_WARNING_AS_ERROR=ON -DGRAFT_BUILD_EXAMPLES=ON -DGRAFT_PROGRAMS_AT_ONCE=ON \
  -DGRAFT_BUILD_BENCHMARKS=OFF \
  "-DGRAFT_TEST_LAYERS=backend;ops;examples;emulated_cuda;source" "$at_once" "${cuda[@]}" || exit 1
run_tests "tests" build-tests

# Which GPU tests did not run, and why.
gpu_cases=$(cat tests/cuda/*.cu 2> /dev/null | grep -cE '^(TEMPLATE_)?TEST_CASE')
gpu_skipped=$(grep -c '<testcase name="cuda/.*status="notrun"' build-tests/ctest.xml)
gpu_emulated=$(grep -c '<testcase name="emulated_cuda/cuda' build-tests/ctest.xml)
gpu_line="the GPU tests ran"
if [ ! -x build-tests/bin/test_cuda ] && [ "$gpu_cases" -gt 0 ]; then
  skipped=$((skipped + gpu_cases))
  gpu_line="$gpu_emulated of $gpu_cases GPU tests ran, on the emulated device: no GPU here"
elif [ "$gpu_skipped" -gt 0 ]; then
  gpu_line="$gpu_emulated of $gpu_cases GPU tests ran, on the emulated device: $(build-tests/bin/test_cuda | sed -n 's/^skipped: //p')"
fi

# The files that take longest first, so that both cores work to the end.
cmake --preset asan "$at_once" -DCMAKE_COMPILE_WARNING_AS_ERROR=ON \
  "-DGRAFT_TEST_LAYERS=analysis;train;mix;io;models;layers;policies;ops;backend;core" || exit 1
run_tests "sanitizers" build-asan

echo
for line in "${broken[@]}"; do echo "$line"; done
echo "$gpu_line"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "${#broken[@]}" -eq 0 ]
