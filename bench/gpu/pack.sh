#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# Programs for a machine with a GPU on which graft cannot be built (no Boost, oneDNN, OpenBLAS), as one archive:
#
#   bash bench/gpu/pack.sh [ARCHIVE]              runs/graft-gpu.tar.xz; builds in build-gpu/ what is missing there
#   BIN=runs/graft-gpu.tar.xz bash bench/gpu/run.sh        on the other machine, in a checkout of the same revision
#
# In it: gpu_report, test_cuda and branch_train_mix, stripped, compiled for Hopper alone (more with
# ARCHITECTURES="80;90a-real") and for any x86-64 processor; in lib/ the shared libraries that they need and that a
# machine for CUDA programs may lack (OpenBLAS, oneDNN, OpenMP, Fortran). Not in it: the C and C++ libraries, which must
# be no older there than here, the driver, and CUDA's libraries (cuBLAS, cuDNN, NCCL: hundreds of MB), which run.sh finds
# in /usr/local/cuda or beside PyTorch.
# Says how large it is, and fails above LIMIT_MIB (60).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
archive=${1:-runs/graft-gpu.tar.xz}
build=${BUILD:-build-gpu}
programs=(gpu_report test_cuda branch_train_mix)

if [ -z "${SKIP_BUILD:-}" ]; then
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGRAFT_CUDA=ON -DGRAFT_NATIVE=OFF \
    -DGRAFT_EXAMPLES_CUDA_POLICIES=usual -DGRAFT_BUILD_EXAMPLES=ON -DGRAFT_BUILD_BENCHMARKS=ON -DGRAFT_BUILD_TESTS=ON \
    -DGRAFT_CUDA_ARCHITECTURES="${ARCHITECTURES:-90a-real}" -DGRAFT_TEST_CUDA_ARCHITECTURES="${ARCHITECTURES:-90a-real}"
  cmake --build "$build" --target "${programs[@]}" --parallel "$(nproc)"
fi

staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
mkdir "$staging/lib"
# Libraries of the system and of CUDA, by the start of their names.
left_out='linux-vdso|ld-linux|libc\.|libm\.|libmvec\.|libdl\.|libpthread\.|librt\.|libstdc\+\+|libgcc_s'
left_out="$left_out|libcuda|libcublas|libcudnn|libnccl|libnv"
for program in "${programs[@]}"; do
  if [ ! -x "$build/bin/$program" ]; then
    echo "pack.sh: expected the program $build/bin/$program, found none"
    exit 1
  fi
  strip -o "$staging/$program" "$build/bin/$program"
  while read -r name path; do
    if [ "$path" = not ]; then
      if ! grep -qE "^($left_out)" <<< "$name"; then
        echo "pack.sh: $program needs $name, which is not here"
        exit 1
      fi
    elif ! grep -qE "^($left_out)" <<< "$name"; then
      cp --dereference --no-clobber "$path" "$staging/lib/$name"
    fi
  done < <(ldd "$build/bin/$program" | sed -nE 's/^[[:space:]]*([^ ]+) => ([^ ]+).*/\1 \2/p')
done
for library in "$staging"/lib/*; do strip --strip-unneeded "$library"; done
changes=$([ -z "$(git status --porcelain)" ] || echo ' with changes')
echo "$(git rev-parse --short HEAD)$changes" > "$staging/revision"

mkdir -p "$(dirname "$archive")"
tar -C "$staging" -cf - . | xz -T0 -6 > "$archive"
size=$(($(stat --format=%s "$archive") / 1024 / 1024 + 1))
echo "$archive: $size MiB"
(cd "$staging" && du -ah --apparent-size . | sort -k2)
if [ "$size" -gt "${LIMIT_MIB:-60}" ]; then
  echo "pack.sh: expected at most ${LIMIT_MIB:-60} MiB"
  exit 1
fi
