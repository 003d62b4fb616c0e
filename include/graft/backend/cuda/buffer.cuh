// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Device memory: the source of the CUDA context's workspace, and buffers that live as long as their owner. Both take
// memory on the current device; a context makes its device current when it is made.

#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>

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
};

template <class T>
class buffer<T, device_space> {
  static_assert(std::is_trivially_copyable_v<T>, "graft::buffer: T is not trivially copyable. Store plain values.");

 public:
  buffer() = default;
  explicit buffer(index_t count) : size_(count) {
    GRAFT_CHECK(count >= 0, "buffer: expected a size of at least 0, got ", count);
    if (count == 0) return;
    data_ = static_cast<T*>(device_memory().allocate(bytes()));
    // A context's stream does not wait for the default stream, so the zeros must be there before we return.
    cudaError_t status = cudaMemset(data_, 0, bytes());
    if (status == cudaSuccess) status = cudaDeviceSynchronize();
    if (status != cudaSuccess) device_memory().deallocate(std::exchange(data_, nullptr), bytes());
    GRAFT_CUDA(status);
  }
  buffer(buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  buffer& operator=(buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~buffer() {
    if (data_ != nullptr) device_memory().deallocate(data_, bytes());
  }

  T* data() const { return data_; }
  index_t size() const { return size_; }
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }

  // All elements as a vector.
  vector_view<T, device_space> view() const { return vector_view<T, device_space>(data_, size_); }
  // The first elements under the given extents. Requires: their product is at most size().
  template <std::integral First, std::integral... Rest>
  graft::view<T, 1 + static_cast<int>(sizeof...(Rest)), device_space> view(First first, Rest... rest) const {
    const index_t wanted = (static_cast<index_t>(first) * ... * static_cast<index_t>(rest));
    GRAFT_CHECK(wanted <= size_, "buffer: expected a view of at most ", size_, " elements, got ", wanted);
    return graft::view<T, 1 + static_cast<int>(sizeof...(Rest)), device_space>(data_, first, rest...);
  }

 private:
  T* data_ = nullptr;
  index_t size_ = 0;
};

}  // namespace graft
