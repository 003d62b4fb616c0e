// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Initial values of parameters. A number depends on the seed, the tensor's name and the element alone, so that two
// models share the tensors they both have, and so that nothing depends on the order in which tensors are drawn.

#include <cmath>
#include <cstdint>
#include <string_view>

#include <graft/core/error.hpp>
#include <graft/core/hash.hpp>
#include <graft/core/parameter_tree.hpp>
#include <graft/core/philox.hpp>

namespace graft {
namespace detail {

// 56 bits: the top byte of a counter's major half belongs to the stream.
constexpr std::uint64_t name_key(std::string_view name) { return fnv1a(name) >> 8; }

// Modified Gram-Schmidt: each row loses its parts along the rows before it and is scaled to length one.
// Requires: rows that are linearly independent. Cost: rows^2 columns.
template <class M>
void orthonormalise_rows(M* values, index_t rows, index_t columns) {
  for (index_t i = 0; i < rows; ++i) {
    M* row = values + i * columns;
    const auto dot = [&](const M* other) {
      double sum = 0;
      for (index_t c = 0; c < columns; ++c) sum += static_cast<double>(row[c]) * static_cast<double>(other[c]);
      return sum;
    };
    for (index_t before = 0; before < i; ++before) {
      const M* other = values + before * columns;
      const double along = dot(other);
      for (index_t c = 0; c < columns; ++c)
        row[c] = static_cast<M>(static_cast<double>(row[c]) - along * static_cast<double>(other[c]));
    }
    const double scale = 1 / std::sqrt(dot(row));
    for (index_t c = 0; c < columns; ++c) row[c] = static_cast<M>(static_cast<double>(row[c]) * scale);
  }
}

}  // namespace detail

// Fills values (entry.size() elements, on the host) from the entry's initialiser.
template <class M>
void draw_initial(const tensor_entry& entry, std::uint64_t seed, M* values) {
  const random_source random{seed, random_stream::initialization};
  const std::uint64_t key = detail::name_key(entry.name);
  for (index_t i = 0; i < entry.size(); ++i) {
    switch (entry.init.distribution) {
      case initializer::kind::zeros:
        values[i] = M(0);
        break;
      case initializer::kind::ones:
        values[i] = M(1);
        break;
      case initializer::kind::normal:
        values[i] = static_cast<M>(entry.init.stddev * random.normal(key, static_cast<std::uint64_t>(i)));
        break;
      case initializer::kind::identity:
        values[i] = M(entry.columns > 0 && i / entry.columns == i % entry.columns ? 1 : 0);
        break;
      case initializer::kind::constant:
        values[i] = static_cast<M>(entry.init.value);
        break;
      case initializer::kind::orthonormal:
        values[i] = static_cast<M>(random.normal(key, static_cast<std::uint64_t>(i)));
        break;
    }
  }
  if (entry.init.distribution == initializer::kind::orthonormal) {
    GRAFT_CHECK(entry.rows <= entry.columns, "draw_initial: ", entry.name,
                " is to have orthonormal rows: expected rows <= columns, got rows=", entry.rows,
                ", columns=", entry.columns);
    detail::orthonormalise_rows(values, entry.rows, entry.columns);
  }
}

}  // namespace graft
