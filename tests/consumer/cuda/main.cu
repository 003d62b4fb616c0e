// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Two .cu files with all headers of the CUDA backend link into one program. It needs no GPU to run.

#include <graft/backend/cuda/cuda.cuh>
#include <graft/version.hpp>

#include <cstdio>

int multiprocessors_of_all_devices();  // other.cu

int main() {
  std::printf("graft %d.%d, %d multiprocessors\n", GRAFT_VERSION_MAJOR, GRAFT_VERSION_MINOR,
              multiprocessors_of_all_devices());
}
