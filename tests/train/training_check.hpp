// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A task that a small model learns in a few steps, and what two runs are compared by.

#include <cstdint>
#include <vector>

#include <graft/train/trainer.hpp>

#include "models/model_check.hpp"

namespace graft::test {

template <class P>
using dense_of = dense_transformer<compute<P, cpu>>;
template <class P>
using moe_of = transformer<mixture_of<2>, compute<P, cpu>>;

// The token after t is 3 t + 1 modulo the vocabulary. A function of the step alone; with holes, one target in seven is missing.
struct arithmetic_source {
  index_t vocabulary;
  bool holes = false;

  void fill(index_t step, matrix_view<std::int32_t> inputs, matrix_view<std::int32_t> targets) {
    const random_source draw{9, random_stream::data};
    for (index_t i = 0; i < inputs.size(); ++i) {
      const auto token = static_cast<index_t>(
          draw.below(static_cast<std::uint64_t>(vocabulary), static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(i)));
      inputs.data[i] = static_cast<std::int32_t>(token);
      targets.data[i] = holes && i % 7 == 3 ? -1 : static_cast<std::int32_t>((3 * token + 1) % vocabulary);
    }
  }
};

template <class Model>
std::vector<typename Model::M> master_of(Model& model) {
  const auto arena = model.parameters().master();
  return {arena.data, arena.data + arena.extent(0)};
}

}  // namespace graft::test
