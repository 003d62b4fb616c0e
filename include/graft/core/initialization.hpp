// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Initial values of parameters. A number depends on the seed, the tensor's name and the element alone, so that two
// models share the tensors they both have, and so that nothing depends on the order in which tensors are drawn.

#include <cstdint>
#include <string_view>

#include <graft/core/hash.hpp>
#include <graft/core/parameter_tree.hpp>
#include <graft/core/philox.hpp>

namespace graft {
namespace detail {

// 56 bits: the top byte of a counter's major half belongs to the stream.
constexpr std::uint64_t name_key(std::string_view name) { return fnv1a(name) >> 8; }

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
    }
  }
}

}  // namespace graft
