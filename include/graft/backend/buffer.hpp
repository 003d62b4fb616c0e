// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Memory that lives as long as its owner: parameters, gradients, optimizer state, caches. The host's half; the
// CUDA backend specialises buffer for device_space.

#include <concepts>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <graft/core/error.hpp>
#include <graft/core/view.hpp>

namespace graft {

// The host's memory as an arena's source. Large requests ask for huge pages: a training step walks hundreds
// of megabytes, where 4 KiB pages cost time in page faults and address translation.
struct host_memory {
  static constexpr std::size_t alignment = 64;

  void* allocate(std::size_t bytes) {
    constexpr std::size_t huge_page = std::size_t{1} << 21;
    const bool large = bytes >= 2 * huge_page;
    const std::size_t unit = large ? huge_page : alignment;
    const std::size_t size = (bytes + unit - 1) / unit * unit;
    void* pointer = std::aligned_alloc(unit, size == 0 ? unit : size);
    GRAFT_CHECK(pointer != nullptr, "host memory: expected to allocate ", bytes, " bytes, got none");
#if defined(__linux__)
    if (large) ::madvise(pointer, size, MADV_HUGEPAGE);  // a hint: failing costs only speed
#endif
    return pointer;
  }
  void deallocate(void* pointer, std::size_t) { std::free(pointer); }
};

// Owns `size` elements, zero at the start. Movable, not copyable. T is trivially copyable.
template <class T, class Space>
class buffer;

template <class T>
class buffer<T, host_space> {
  static_assert(std::is_trivially_copyable_v<T>, "graft::buffer: T is not trivially copyable. Store plain values.");

 public:
  buffer() = default;
  explicit buffer(index_t count) : size_(count) {
    GRAFT_CHECK(count >= 0, "buffer: expected a size of at least 0, got ", count);
    if (count == 0) return;
    data_ = static_cast<T*>(host_memory().allocate(bytes()));
    std::memset(static_cast<void*>(data_), 0, bytes());
  }
  buffer(buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  buffer& operator=(buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~buffer() { host_memory().deallocate(data_, bytes()); }

  T* data() const { return data_; }
  index_t size() const { return size_; }
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }

  // All elements as a vector.
  vector_view<T, host_space> view() const { return vector_view<T, host_space>(data_, size_); }
  // The first elements under the given extents. Requires: their product is at most size().
  template <std::integral First, std::integral... Rest>
  graft::view<T, 1 + static_cast<int>(sizeof...(Rest)), host_space> view(First first, Rest... rest) const {
    const index_t wanted = (static_cast<index_t>(first) * ... * static_cast<index_t>(rest));
    GRAFT_CHECK(wanted <= size_, "buffer: expected a view of at most ", size_, " elements, got ", wanted);
    return graft::view<T, 1 + static_cast<int>(sizeof...(Rest)), host_space>(data_, first, rest...);
  }

 private:
  T* data_ = nullptr;
  index_t size_ = 0;
};

}  // namespace graft
