// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// linear_gate: logits = x W^T, with the jitter of the Switch Transformer as an option.

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/policies/gate/gate.hpp>
#include <graft/policies/gate/gate_products.hpp>
#include <graft/policies/options.hpp>

namespace graft {

namespace detail {

// y = x * u, u uniform in [1 - jitter, 1 + jitter), a function of (seed, step, layer, token, column). With add: y += x
// * u.
template <class T, class M, class Space>
struct jitter_row {
  view<T, 2, Space> y;        // (T, D)
  view<const T, 2, Space> x;  // (T, D)
  routing_pass<M, Space> pass;
  double jitter;
  bool add;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const routing_token<M> token = pass.token(row);
    // The first draws of a token belong to the router.
    group.for_each(x.extent(1), [&](index_t i) {
      const double factor = 1.0 + jitter * (2.0 * token.uniform((index_t{1} << 16) + i) - 1.0);
      const M value = static_cast<M>(x.row(row)[i]) * static_cast<M>(factor);
      y.row(row)[i] = T(add ? static_cast<M>(y.row(row)[i]) + value : value);
    });
  }
};

}  // namespace detail

// l = x W^T, no bias. Initialised N(0, stddev^2). jitter: while training, the router reads x times uniform noise in
// [1 - jitter, 1 + jitter). Source of the noise: Fedus, Zoph, Shazeer, "Switch Transformers", 2021, arXiv 2101.03961.
struct linear_gate {
  static constexpr auto options() {
    return std::tuple(option("stddev", &linear_gate::stddev), option("jitter", &linear_gate::jitter));
  }

  double stddev = 0.02;
  double jitter = 0;

  template <class Leaf>
  using parameters = Leaf;

  constexpr parameter_spec specs(const transformer_shape& shape, index_t logits) const {
    return parameter_spec::matrix(role::router, logits, shape.width, initializer::normal(stddev));
  }

  template <class Compute>
  struct saved {
    view<const typename Compute::storage, 2, typename Compute::space> input;  // what the product read, (T, D)
  };

  template <class Compute>
  saved<Compute> forward(typename Compute::context_type& context,
                         const routing_pass<typename Compute::master, typename Compute::space>& pass,
                         const typename Compute::weight& weight,
                         view<typename Compute::master, 2, typename Compute::space> logits,
                         view<const typename Compute::storage, 2, typename Compute::space> x) const {
    using T = typename Compute::storage;
    GRAFT_CHECK(jitter >= 0 && jitter < 1, "linear_gate: expected a jitter from 0 to below 1, got ", jitter);
    saved<Compute> saved{x};
    if (jitter > 0 && pass.at.training) {
      auto noisy = context.template allocate<T>(x.extent(0), x.extent(1));
      launch_rows(
          context, x.extent(0), x.extent(1),
          detail::jitter_row<T, typename Compute::master, typename Compute::space>{noisy, x, pass, jitter, false});
      saved.input = noisy;
    }
    gemm_nt(context, logits, saved.input, weight.matrix(), accumulate::no);
    return saved;
  }

  template <class Compute>
  void backward(typename Compute::context_type& context,
                const routing_pass<typename Compute::master, typename Compute::space>& pass,
                const typename Compute::weight& weight, const typename Compute::gradient& gradient,
                const saved<Compute>& saved, view<typename Compute::master, 2, typename Compute::space> d_logits,
                view<const typename Compute::storage, 2, typename Compute::space> x,
                view<typename Compute::storage, 2, typename Compute::space> d_x) const {
    using T = typename Compute::storage;
    using M = typename Compute::master;
    if (saved.input.data == x.data) {
      detail::gate_product_backward<Compute>(context, weight.matrix(), gradient.matrix(), d_logits, x, d_x);
      return;
    }
    workspace_scope scope(context);
    auto d_noisy = context.template allocate<T>(x.extent(0), x.extent(1));
    fill_zero(context, d_noisy);
    detail::gate_product_backward<Compute>(context, weight.matrix(), gradient.matrix(), d_logits, saved.input, d_noisy);
    launch_rows(context, x.extent(0), x.extent(1),
                detail::jitter_row<T, M, typename Compute::space>{d_x, d_noisy, pass, jitter, true});
  }
};
static_assert(Gate<linear_gate>, "graft::linear_gate: it is not a Gate. See what policies/gate/gate.hpp asks for.");

// What stands in the place of a gate for a router that reads no logits.
struct no_gate {
  template <class Leaf>
  using parameters = Leaf;
  constexpr parameter_spec specs(const transformer_shape&, index_t) const { return parameter_spec(); }
  template <class Compute>
  struct saved {};
};

namespace detail {

template <class R>
constexpr auto gate_of(const R& router) {
  if constexpr (!R::spec.logits)
    return no_gate{};
  else if constexpr (requires { router.gate; })
    return router.gate;
  else
    return linear_gate{};
}
template <class R>
using gate_type = decltype(gate_of(std::declval<const R&>()));

}  // namespace detail

}  // namespace graft
