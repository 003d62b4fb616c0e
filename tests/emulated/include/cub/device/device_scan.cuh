// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// cub::DeviceScan on the emulated device: the sum of what stands before, in order. Its temporary memory is overwritten.

#include <cuda_runtime.h>

namespace cub {

struct DeviceScan {
  template <class In, class Out>
  static cudaError_t ExclusiveSum(void* memory, std::size_t& bytes, In in, Out out, int count, cudaStream_t stream) {
    if (memory == nullptr) {
      bytes = static_cast<std::size_t>(count) * sizeof(*out) + 1;
      return cudaSuccess;
    }
    return static_cast<cudaError_t>(emulated::later(stream, [=, size = bytes] {
      std::memset(memory, 0xff, size);
      std::remove_cvref_t<decltype(*out)> sum = 0;
      for (int i = 0; i < count; ++i) {
        const auto value = in[i];  // before out[i], which may be the same
        out[i] = sum;
        sum += value;
      }
    }));
  }
};

}  // namespace cub
