// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// compute<Precision, Backend>: in which numbers and where a model runs, as one template argument.

#include <graft/backend/backend.hpp>
#include <graft/core/parameter_tree.hpp>
#include <graft/core/precision.hpp>

namespace graft {

template <Precision P, class Backend>
struct compute {
  using precision = P;
  using backend = Backend;
  using context_type = context<Backend>;
  using space = typename Backend::space;
  using storage = typename P::storage;  // activations and the weights that products read
  using master = typename P::master;    // gradients of weights, losses, routing

  using weight = parameter_view<storage, space>;
  using gradient =
      parameter_view<master, space>;  // absent (null) for a frozen parameter: then nothing is computed for it
};

}  // namespace graft
