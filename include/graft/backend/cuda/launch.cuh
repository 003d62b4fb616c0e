// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The one door to a kernel: a launch on a stream, checked, with as much dynamic shared memory as it asks for.

#include <cstddef>
#include <map>
#include <utility>

#include <cuda_runtime.h>

#include <graft/backend/cuda/context.cuh>

namespace graft::detail {

// What every kernel may use of dynamic shared memory without asking: 48 KiB beside what it declares statically, which
// is a few words in ours.
inline constexpr std::size_t unasked_shared_bytes = std::size_t{32} << 10;

// Lets `kernel` use `bytes` of dynamic shared memory on the current device. Asked once for a kernel and a device: the
// largest size so far is remembered.
inline void allow_shared_bytes(const char* name, const void* kernel, std::size_t bytes) {
  static thread_local std::map<std::pair<const void*, int>, std::size_t> allowed;
  int device = 0;
  GRAFT_CUDA(cudaGetDevice(&device));
  std::size_t& most = allowed[{kernel, device}];
  if (bytes <= most) return;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (status != cudaSuccess) (void)cudaGetLastError();
  GRAFT_CHECK(status == cudaSuccess, "launch of ", name, ": expected a device that gives a block ", bytes,
              " bytes of shared memory, got ", cudaGetErrorName(status), " (", cudaGetErrorString(status), ")");
  most = bytes;
}

// Queues kernel(arguments...) with `grid` blocks of `block` threads and `shared_bytes` of dynamic shared memory.
// `arguments` are converted to the kernel's parameters, which hold views and plain values.
// Errors: a launch that was refused. What goes wrong inside the kernel shows at the next synchronisation.
template <class... Parameters, class... Arguments>
void launch(cudaStream_t stream, const char* name, void (*kernel)(Parameters...), unsigned grid, unsigned block,
            std::size_t shared_bytes, Arguments&&... arguments) {
  if (shared_bytes > unasked_shared_bytes) {
    allow_shared_bytes(name, reinterpret_cast<const void*>(kernel), shared_bytes);
  }
  cudaLaunchConfig_t how{};
  how.gridDim = dim3(grid);
  how.blockDim = dim3(block);
  how.dynamicSmemBytes = shared_bytes;
  how.stream = stream;
  const cudaError_t status = cudaLaunchKernelEx(&how, kernel, std::forward<Arguments>(arguments)...);
  if (status != cudaSuccess) (void)cudaGetLastError();
  GRAFT_CHECK(status == cudaSuccess, "CUDA: launch of ", name, " with ", grid, " blocks of ", block, " threads and ",
              shared_bytes, " bytes of shared memory failed with ", cudaGetErrorName(status), " (",
              cudaGetErrorString(status), ")");
}

template <class... Parameters, class... Arguments>
void launch(const context<cuda>& ctx, const char* name, void (*kernel)(Parameters...), unsigned grid, unsigned block,
            std::size_t shared_bytes, Arguments&&... arguments) {
  launch(ctx.stream(), name, kernel, grid, block, shared_bytes, std::forward<Arguments>(arguments)...);
}

// The block's dynamic shared memory, aligned to 128 bytes: `shared_bytes` of the launch.
static __device__ __forceinline__ std::byte* dynamic_shared() {
  alignas(128) extern __shared__ std::byte dynamic_shared_memory[];
  return dynamic_shared_memory;
}

}  // namespace graft::detail
