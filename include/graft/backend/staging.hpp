// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Host memory through which data reaches the memory of a context, step after step, without waiting for the device. The
// host's half; backend/cuda/staging.cuh has the other.

#include <cstddef>
#include <type_traits>

#include <graft/backend/buffer.hpp>

namespace graft {

// A block to be filled and sent. Where copies are queued there are two, so that one is filled while the other is under
// way.
template <class Context>
class staging {
  static_assert(std::is_same_v<typename Context::space, host_space>,
                "graft::staging: the staging of this backend is not known here. Include its header, such as "
                "graft/backend/cuda/staging.cuh.");

 public:
  explicit staging(std::size_t bytes) : block_(static_cast<index_t>(bytes)) {}

  std::size_t bytes() const { return block_.bytes(); }
  // The block to fill, aligned to 64 bytes. Waits until what it was last sent with has left it.
  std::byte* block() { return block_.data(); }
  // Queues the copy of the block to target. The next block() is another. Requires: target has bytes() elements.
  void send(Context& context, const vector_view<std::byte, host_space>& target) {
    copy_from_host(context, target, block_.data());
  }

 private:
  buffer<std::byte, host_space> block_;
};

}  // namespace graft
