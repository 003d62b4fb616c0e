// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the parts of the emulated device (include/cuda_runtime.h says what it is) know of each other. Every call of the
// runtime takes the lock; all else runs under it.

#include <functional>
#include <mutex>
#include <string>

#include <cuda_runtime.h>

namespace emulated {

// runtime.cpp: the lock; and the error that ends all use of the device.
std::recursive_mutex& device_lock();
void stick(const std::string& sentence);
bool stuck();

// runtime.cpp: work queues in its stream, or becomes part of the graph that the stream captures.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);
// Success, or why a call that waits for the device or asks it for memory is refused now: a capture is under way.
cudaError_t outside_captures();

// memory.cpp: device memory, which the host cannot touch while no opening lives.
void* take_memory(std::size_t bytes);  // null when there is none
bool give_back_memory(void* pointer);
std::size_t free_memory();
std::size_t all_memory();
bool is_device_address(const void* pointer);
bool is_allocated(const void* pointer, std::size_t bytes);  // in one allocation
struct open_memory {                                        // that of a pointer, or all of it
  explicit open_memory(const void* pointer = nullptr);
  ~open_memory();
  open_memory(const open_memory&) = delete;
  open_memory& operator=(const open_memory&) = delete;

 private:
  const void* pointer_;
};

// block.cpp: all blocks of a kernel, now. An error sticks.
struct launch_shape {
  dim3 grid, block;
  std::size_t shared_bytes;
  std::string name;
};
enum class thread_order { forward, reverse, shuffle };
void set_order(thread_order order);
void run_kernel(const launch_shape& shape, const std::function<void()>& thread);
// The kernel that runs, or null.
const launch_shape* running();

}  // namespace emulated
