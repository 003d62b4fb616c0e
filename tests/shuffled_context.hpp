// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A CPU context whose rows and elements are visited in random order: an op runs on it as it does on any context, and
// its results may differ from the usual ones only by the rounding of reordered sums. Products and sorts are the CPU's
// own.

#include <cstdint>

#include <graft/backend/cpu/cpu.hpp>

#include "shuffled_group.hpp"

namespace graft::test {

class shuffled_context : public context<cpu> {
 public:
  explicit shuffled_context(std::uint32_t seed) : context<cpu>(context_options{1}), seed_(seed) {}

  // Another order for every launch.
  std::uint32_t next_seed() { return seed_ += 0x9e3779b9u; }

 private:
  std::uint32_t seed_;
};

// Found in place of the CPU's own through the type of the context.
template <class Algorithm>
void launch_rows(shuffled_context& ctx, index_t row_count, index_t, const Algorithm& algorithm) {
  launch_shuffled(row_count, ctx.next_seed(), algorithm);
}

template <class F>
void launch_elements(shuffled_context& ctx, index_t count, const F& f) {
  shuffled_group(ctx.next_seed()).for_each(count, f);
}

}  // namespace graft::test
