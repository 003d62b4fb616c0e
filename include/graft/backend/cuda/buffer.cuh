// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Device memory: the source of the CUDA context's workspace and of buffers. Both take memory on the current device; a
// context makes its device current when it is made.

#include <cstddef>

#include <graft/backend/buffer.hpp>
#include <graft/backend/cuda/check.cuh>

namespace graft {

// The device's memory as an arena's source. Giving memory back waits for the device, so kernels that still use it end
// first; it happens only while an arena grows to its final size.
struct device_memory {
  static constexpr std::size_t alignment = 256;

  void* allocate(std::size_t bytes) {
    void* pointer = nullptr;
    const cudaError_t status = cudaMalloc(&pointer, bytes == 0 ? alignment : bytes);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      std::size_t available = 0, total = 0;
      GRAFT_CUDA(cudaMemGetInfo(&available, &total));
      detail::raise("device memory: expected to allocate ", bytes, " bytes, got only ", available, " free of ", total);
    }
    GRAFT_CUDA(status);
    return pointer;
  }
  void deallocate(void* pointer, std::size_t) { (void)cudaFree(pointer); }
  // A context's stream does not wait for the default stream, so the zeros must be there before we return.
  void clear(void* pointer, std::size_t bytes) {
    GRAFT_CUDA(cudaMemset(pointer, 0, bytes));
    GRAFT_CUDA(cudaDeviceSynchronize());
  }
};

template <>
struct memory_of<device_space> {
  using type = device_memory;
};

}  // namespace graft
