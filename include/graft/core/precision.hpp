// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Precision policies. storage: activations and the copy of the weights that products read.
// master: weights as the optimizer holds them, gradients, moments, losses and routing.

#include <concepts>

#include <graft/core/dtype.hpp>

namespace graft {

struct fp64 {
  using storage = double;
  using master = double;
  static constexpr const char* name = "fp64";
};
struct fp32 {
  using storage = float;
  using master = float;
  static constexpr const char* name = "fp32";
};
struct bf16 {
  using storage = bfloat16;
  using master = float;
  static constexpr const char* name = "bf16";
};

template <class P>
concept Precision = requires {
  typename P::storage;
  typename P::master;
  { P::name } -> std::convertible_to<const char*>;
};

// Whether the weights that products read are a second, narrower copy of the master weights.
template <Precision P>
inline constexpr bool has_narrow_copy = !std::same_as<typename P::storage, typename P::master>;

}  // namespace graft
