// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a training step gets from the host and gives back to it, each in one block: one copy in front of a step, and one
// behind the steps that report.

#include <cstddef>
#include <cstdint>

#include <graft/core/host_device.hpp>
#include <graft/core/step_value.hpp>
#include <graft/core/view.hpp>

namespace graft {

// The numbers of a step that are others in the next, as they stand in the memory of the context (core/step_value.hpp).
struct step_numbers {
  index_t step;
  double token_scale;  // 1 / targets of the step
  double rate;         // the learning rate
};

// Where they and the batch lie in a block of bytes: numbers, inputs (B, S), targets (B, S).
class step_block {
 public:
  step_block(index_t sequences, index_t positions) : sequences_(sequences), positions_(positions) {}

  std::size_t bytes() const { return head + 2 * batch_bytes(); }
  step_numbers* numbers(std::byte* block) const { return reinterpret_cast<step_numbers*>(block); }
  template <class Space = host_space>
  matrix_view<std::int32_t, Space> inputs(std::byte* block) const {
    return tokens<Space>(block + head);
  }
  template <class Space = host_space>
  matrix_view<std::int32_t, Space> targets(std::byte* block) const {
    return tokens<Space>(block + head + batch_bytes());
  }

 private:
  static constexpr std::size_t head = 256;  // so that what follows is aligned as an allocation is
  static_assert(sizeof(step_numbers) <= head, "graft::step_block: the numbers outgrew their place. Enlarge head.");

  std::size_t batch_bytes() const { return static_cast<std::size_t>(sequences_ * positions_) * sizeof(std::int32_t); }
  template <class Space>
  matrix_view<std::int32_t, Space> tokens(std::byte* first) const {
    return matrix_view<std::int32_t, Space>(reinterpret_cast<std::int32_t*>(first), sequences_, positions_);
  }

  index_t sequences_, positions_;
};

namespace detail {

// What the host may ask of a step: the head of the summary, and the model's sums behind it.
//   out[0] the norm of the gradient;  out[1] 1 + the first step that was not finite, 0 for none, out[2], out[3] its
//   mean loss and its norm, which stay until the host clears them;  out[head + i] = sums[i], the loss first.
template <class M, class Space>
struct step_summary_element {
  view<double, 1, Space> out;
  view<const M, 1, Space> sums;
  view<const M, 1, Space> norm;
  step_value<index_t> step;
  step_value<double> token_scale;
  index_t head;

  GRAFT_HOST_DEVICE void operator()(index_t i) const {
    if (i < sums.extent(0)) {
      out[head + i] = static_cast<double>(sums[i]);
      return;
    }
    const double length = static_cast<double>(norm[0]), loss = static_cast<double>(sums[0]);
    out[0] = length;
    const bool finite = length - length == 0 && loss - loss == 0;
    if (finite || out[1] > 0) return;
    out[1] = static_cast<double>(index_t{step} + 1);
    out[2] = loss * token_scale;
    out[3] = length;
  }
};

}  // namespace detail

}  // namespace graft
