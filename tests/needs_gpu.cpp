// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Linked into a test program beside main.cpp, it has the program skipped where there is no GPU.

#include <string>

#include <cuda_runtime_api.h>

std::string reason_to_skip() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) return std::string("no usable GPU here: ") + cudaGetErrorString(status);
  return devices == 0 ? "no GPU here" : "";
}
