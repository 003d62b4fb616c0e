// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The CUDA backend's context: a device, a stream, cuBLASLt and a workspace in device memory.

#include <concepts>
#include <memory>
#include <string>
#include <typeindex>
#include <utility>
#include <vector>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/cuda/buffer.cuh>
#include <graft/backend/cuda/check.cuh>
#include <graft/backend/cuda/cublas_lt.cuh>

namespace graft {

// Work is queued on the context's own stream in the order of the calls; synchronize() waits for it. The constructor
// makes the device current for the calling thread; a thread that holds contexts of several devices calls
// make_current() before it changes from one to another. The stream does not wait for the default stream.
template <>
class context<cuda> {
 public:
  using backend = cuda;
  using space = device_space;

  // Errors: no CUDA device here; options.device not one of them.
  explicit context(const context_options& options = {}) : device_(options.device) {}
  context(const context&) = delete;
  context& operator=(const context&) = delete;
  ~context() {
    (void)cudaStreamSynchronize(stream());
    while (!attached_.empty()) attached_.pop_back();  // the last made goes first
  }

  memory_arena<device_memory>& workspace() { return workspace_; }
  void synchronize() { GRAFT_CUDA(cudaStreamSynchronize(stream())); }
  int threads() const { return 1; }  // of the host: one thread queues the work
  std::string device_name() const { return device_.properties.name; }

  // Uninitialised workspace, 256-byte aligned, until the enclosing workspace_scope ends.
  template <class T, std::integral... Extents>
  auto allocate(Extents... extents) {
    return workspace_.template allocate_view<T, space>(extents...);
  }

  // Beyond what every context has:
  cudaStream_t stream() const { return device_.stream; }
  int device() const { return device_.number; }
  int multiprocessors() const { return device_.properties.multiProcessorCount; }
  void make_current() const { GRAFT_CUDA(cudaSetDevice(device_.number)); }
  detail::cublas_lt& products() { return products_; }

  // The one T of this context, made by T(context) when it is first asked for and destroyed with the context: handles
  // and plans of libraries that the context does not know. Requires: T does not allocate from the workspace for good.
  template <class T>
  T& attached() {
    const std::type_index type = typeid(T);
    for (const auto& [of, object] : attached_)
      if (of == type) return *static_cast<T*>(object.get());
    auto made = std::make_shared<T>(*this);  // may attach others
    attached_.emplace_back(type, made);
    return *made;
  }

 private:
  // First to be made and last to go: what the others need in order to allocate.
  struct device_and_stream {
    explicit device_and_stream(int wanted) : number(wanted) {
      detail::require_device(number);
      GRAFT_CUDA(cudaSetDevice(number));
      GRAFT_CUDA(cudaGetDeviceProperties(&properties, number));
      GRAFT_CHECK(properties.major >= 8, "device cuda: expected compute capability 8.0 or above, got ",
                  properties.major, ".", properties.minor, " (", properties.name, ")");
      GRAFT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    }
    device_and_stream(const device_and_stream&) = delete;
    device_and_stream& operator=(const device_and_stream&) = delete;
    ~device_and_stream() { (void)cudaStreamDestroy(stream); }

    int number;
    cudaDeviceProp properties{};
    cudaStream_t stream = nullptr;
  };

  device_and_stream device_;
  detail::cublas_lt products_;
  memory_arena<device_memory> workspace_;
  std::vector<std::pair<std::type_index, std::shared_ptr<void>>> attached_;
};

}  // namespace graft
