// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Workspace: a bump allocator. A step takes what it needs in the order it needs it and gives all of it back at
// once, so that from the second step on no memory is asked of the system.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <utility>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/core/view.hpp>

namespace graft {

// Where an arena's memory comes from: host_memory (backend/buffer.hpp), the CUDA backend's own.
// allocate returns memory aligned to `alignment` or throws graft::error.
template <class S>
concept MemorySource = requires(S& source, std::size_t bytes, void* pointer) {
  { S::alignment } -> std::convertible_to<std::size_t>;
  { source.allocate(bytes) } -> std::same_as<void*>;
  source.deallocate(pointer, bytes);
};

// Hands out memory by moving a position forward, and takes it back by moving the position back to a mark.
// Grows by chunks. When everything is given back the chunks become one that holds the peak.
// Cost: allocate and release are a few instructions, unless the arena grows.
template <MemorySource Source>
class memory_arena {
 public:
  // A position to return to.
  struct mark {
    std::size_t chunk = 0;
    std::size_t offset = 0;
    std::size_t live = 0;
  };

  explicit memory_arena(Source source = Source()) : source_(std::move(source)) {}
  memory_arena(const memory_arena&) = delete;
  memory_arena& operator=(const memory_arena&) = delete;
  ~memory_arena() { drop_chunks(); }

  // Uninitialised memory, aligned to Source::alignment. Never null, also for 0 bytes.
  void* allocate(std::size_t bytes) {
    const std::size_t size = round_up(bytes, Source::alignment);
    if (chunks_.empty() || at_.offset + size > chunks_[at_.chunk].size) next_chunk(size);
    void* result = static_cast<std::byte*>(chunks_[at_.chunk].data) + at_.offset;
    at_.offset += size;
    at_.live += size;
    peak_ = std::max(peak_, at_.live);
    return result;
  }

  // Uninitialised view of T with the given extents, row-major.
  template <class T, class Space, std::integral... Extents>
  view<T, static_cast<int>(sizeof...(Extents)), Space> allocate_view(Extents... extents) {
    const auto lowest = std::min({static_cast<index_t>(extents)...});
    GRAFT_CHECK(lowest >= 0, "workspace: expected extents of at least 0, got ", lowest);
    const std::size_t count = (sizeof(T) * ... * static_cast<std::size_t>(extents));
    return view<T, static_cast<int>(sizeof...(Extents)), Space>(static_cast<T*>(allocate(count)), extents...);
  }

  mark position() const { return at_; }

  // Gives back everything allocated since `to` was taken. Requires: marks are released in reverse order.
  void release(const mark& to) {
    at_ = to;
    if (at_.live == 0) merge();
  }

  std::size_t requests() const { return requests_; }  // calls to the system's allocator so far
  std::size_t live_bytes() const { return at_.live; }
  std::size_t peak_bytes() const { return peak_; }
  std::size_t reserved_bytes() const {
    std::size_t total = 0;
    for (const chunk& c : chunks_) total += c.size;
    return total;
  }

 private:
  struct chunk {
    void* data;
    std::size_t size;
  };
  static constexpr std::size_t smallest_chunk = std::size_t{1} << 20;

  static std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

  void add_chunk(std::size_t size) {
    chunks_.reserve(chunks_.size() + 1);
    chunks_.push_back({source_.allocate(size), size});
    ++requests_;
  }
  // Half as much again as there is, so that a growing arena asks seldom; where that is too much, what is needed.
  void add_chunk_for(std::size_t size) {
    const std::size_t needed = round_up(size, smallest_chunk), wanted = std::max(needed, reserved_bytes() / 2);
    if (wanted > needed) {
      try {
        return add_chunk(wanted);
      } catch (const error&) {}
    }
    add_chunk(needed);
  }
  void drop_chunks() {
    for (const chunk& c : chunks_) source_.deallocate(c.data, c.size);
    chunks_.clear();
  }

  // Moves the position to the start of a later chunk that holds `size` bytes, adding one if there is none.
  void next_chunk(std::size_t size) {
    std::size_t next = chunks_.empty() ? 0 : at_.chunk + 1;
    while (next < chunks_.size() && chunks_[next].size < size) ++next;
    if (next == chunks_.size()) add_chunk_for(size);
    at_.chunk = next;
    at_.offset = 0;
  }

  // One chunk in place of several, once nothing is allocated, so that the next step asks the system for nothing. Called
  // while an error may be on its way out, so it must not throw: where there is no memory for one large chunk, the next
  // allocate() asks again and says so.
  void merge() noexcept {
    at_ = {};
    if (chunks_.size() < 2) return;
    drop_chunks();
    try {
      add_chunk(round_up(peak_, smallest_chunk));
    } catch (...) {}
  }

  Source source_;
  std::vector<chunk> chunks_;
  mark at_;
  std::size_t peak_ = 0;
  std::size_t requests_ = 0;
};

// While it lives, allocations of the context's workspace are its own; at its end they are given back.
template <class Context>
class workspace_scope {
 public:
  explicit workspace_scope(Context& ctx) : ctx_(&ctx), begin_(ctx.workspace().position()) {}
  workspace_scope(const workspace_scope&) = delete;
  workspace_scope& operator=(const workspace_scope&) = delete;
  ~workspace_scope() { ctx_->workspace().release(begin_); }

 private:
  using position = decltype(std::declval<Context&>().workspace().position());
  Context* ctx_;
  position begin_;
};

}  // namespace graft
