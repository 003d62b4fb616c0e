// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the benchmarks of the CPU share.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

#include <graft/core/transformer_shape.hpp>
#include <graft/io/byte_tokenizer.hpp>

namespace bench {

using clock_type = std::chrono::steady_clock;

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// The mean of so many calls.
template <class Work>
double seconds_of(int times, const Work& work) {
  const auto start = clock_type::now();
  for (int i = 0; i < times; ++i) work();
  return std::chrono::duration<double>(clock_type::now() - start).count() / times;
}

// A model of the size that the preset "quick" of the example programs has.
inline graft::transformer_shape quick_shape(graft::index_t positions) {
  return {.vocabulary = graft::byte_tokenizer::padded_vocabulary,
          .width = 192,
          .blocks = 4,
          .heads = 4,
          .kv_heads = 4,
          .head_dim = 48,
          .hidden = 512,
          .positions = positions};
}

}  // namespace bench
