// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Memory that lives as long as its owner: parameters, gradients, optimizer state, caches. The host's memory is here, a
// device's with its backend (memory_of).

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
  void clear(void* pointer, std::size_t bytes) { std::memset(pointer, 0, bytes); }
};

// The memory of a space: allocate, deallocate, and clear, which sets bytes to zero before it returns.
template <class Space>
struct memory_of;
template <>
struct memory_of<host_space> {
  using type = host_memory;
};

// Owns `size` elements, zero at the start. Movable, not copyable. T is trivially copyable.
template <class T, class Space>
class buffer {
  static_assert(std::is_trivially_copyable_v<T>, "graft::buffer: T is not trivially copyable. Store plain values.");
  using memory = typename memory_of<Space>::type;

 public:
  buffer() = default;
  explicit buffer(index_t count) : buffer() {  // so that the memory is given back where clearing it fails
    GRAFT_CHECK(count >= 0, "buffer: expected a size of at least 0, got ", count);
    if (count == 0) return;
    size_ = count;
    data_ = static_cast<T*>(memory().allocate(bytes()));
    memory().clear(data_, bytes());
  }
  buffer(buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  buffer& operator=(buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~buffer() {
    if (data_ != nullptr) memory().deallocate(data_, bytes());
  }

  T* data() const { return data_; }
  index_t size() const { return size_; }
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }

  // All elements as a vector.
  vector_view<T, Space> view() const { return vector_view<T, Space>(data_, size_); }
  // The first elements under the given extents. Requires: their product is at most size().
  template <std::integral First, std::integral... Rest>
  graft::view<T, 1 + static_cast<int>(sizeof...(Rest)), Space> view(First first, Rest... rest) const {
    const index_t wanted = (static_cast<index_t>(first) * ... * static_cast<index_t>(rest));
    GRAFT_CHECK(wanted <= size_, "buffer: expected a view of at most ", size_, " elements, got ", wanted);
    return graft::view<T, 1 + static_cast<int>(sizeof...(Rest)), Space>(data_, first, rest...);
  }

 private:
  T* data_ = nullptr;
  index_t size_ = 0;
};

}  // namespace graft
