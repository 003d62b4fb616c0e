#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is missing, builds the examples into build/bin/ and runs the complete workflow:
#
#   bash examples/run.sh                                    is   --preset quick --out runs/quick
#   bash examples/run.sh --preset smoke --out runs/smoke    arguments are those of the program branch_train_mix
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
environment=$(bash "$root/cmake/dependencies.sh")
eval "$environment"

build=$root/build
generator=()
if [ ! -f "$build/CMakeCache.txt" ]; then
  generator=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DGRAFT_BUILD_TESTS=OFF -DGRAFT_PROGRAMS_AT_ONCE=ON)
  # Compiling for GPUs takes minutes, and without one nothing here would use it.
  if [ ! -e /dev/nvidia0 ]; then generator+=(-DGRAFT_CUDA=OFF); fi
fi
cmake -S "$root" -B "$build" "${generator[@]}" -DGRAFT_BUILD_EXAMPLES=ON
cmake --build "$build" --target examples --parallel "$(nproc)"

if [ $# -eq 0 ]; then set -- --preset quick --out runs/quick; fi
exec "$build/bin/branch_train_mix" "$@"
