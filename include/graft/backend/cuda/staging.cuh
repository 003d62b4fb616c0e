// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Staging on CUDA: two blocks of pinned host memory, and an event behind each copy.

#include <cstddef>

#include <graft/backend/cuda/context.cuh>
#include <graft/backend/staging.hpp>

namespace graft {

namespace detail {

// Pinned host memory and the event that says when the device has read it.
class pinned_block {
 public:
  explicit pinned_block(std::size_t bytes) {
    GRAFT_CUDA(cudaMallocHost(&data_, bytes == 0 ? 1 : bytes));
    const cudaError_t status = cudaEventCreateWithFlags(&read_, cudaEventDisableTiming);
    if (status != cudaSuccess) (void)cudaFreeHost(data_);
    GRAFT_CUDA(status);
  }
  pinned_block(const pinned_block&) = delete;
  pinned_block& operator=(const pinned_block&) = delete;
  ~pinned_block() {
    (void)cudaEventSynchronize(read_);  // the device may still be reading
    (void)cudaEventDestroy(read_);
    (void)cudaFreeHost(data_);
  }

  void* data() const { return data_; }
  void wait() { GRAFT_CUDA(cudaEventSynchronize(read_)); }  // returns at once before the first send
  void send(const context<cuda>& context, void* target, std::size_t bytes) {
    GRAFT_CUDA(cudaMemcpyAsync(target, data_, bytes, cudaMemcpyHostToDevice, context.stream()));
    GRAFT_CUDA(cudaEventRecord(read_, context.stream()));
  }

 private:
  void* data_ = nullptr;
  cudaEvent_t read_ = nullptr;
};

}  // namespace detail

template <>
class staging<context<cuda>> {
 public:
  explicit staging(std::size_t bytes)
      : bytes_(bytes), blocks_{detail::pinned_block(bytes), detail::pinned_block(bytes)} {}

  std::size_t bytes() const { return bytes_; }
  std::byte* block() {
    blocks_[next_].wait();
    return static_cast<std::byte*>(blocks_[next_].data());
  }
  void send(context<cuda>& context, const vector_view<std::byte, device_space>& target) {
    GRAFT_CHECK(target.contiguous() && static_cast<std::size_t>(target.size()) == bytes_,
                "staging: expected a target of ", bytes_, " contiguous bytes, got ", target.size());
    blocks_[next_].send(context, target.data, bytes_);
    next_ = 1 - next_;
  }

 private:
  std::size_t bytes_;
  detail::pinned_block blocks_[2];
  int next_ = 0;
};

}  // namespace graft
