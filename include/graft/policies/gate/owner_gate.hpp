// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// owner_gate: the gate of FlexOlmo. What belongs to the owner of expert i are a row and a bias of its own, which can be
// trained apart from all others, added to a model and taken out of it.

#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/policies/gate/gate.hpp>
#include <graft/policies/gate/gate_products.hpp>
#include <graft/policies/options.hpp>

namespace graft {

// In a checkpoint the share of expert i is gate.i.rows and gate.i.bias: a tensor of its own, so that rules about what
// is trained, merged or removed can name it.
template <class Leaf>
struct owner_gate_parameters {
  BOOST_HANA_DEFINE_STRUCT(owner_gate_parameters, (Leaf, rows), (Leaf, bias));
};

namespace detail {

// min(b_i, 0), and 0 for the public expert
template <class T, class M, class Space>
struct owner_bias {
  view<const T, 1, Space> bias;  // (N)

  GRAFT_HOST_DEVICE bool live(index_t i) const { return i > 0 && static_cast<M>(bias[i]) < M(0); }
  GRAFT_HOST_DEVICE M operator()(index_t i) const { return live(i) ? static_cast<M>(bias[i]) : M(0); }
};

template <class T, class M, class Space>
struct add_owner_bias {
  owner_bias<T, M, Space> bias;
  view<M, 2, Space> logits;

  GRAFT_HOST_DEVICE void operator()(index_t element) const {
    const index_t experts = logits.extent(1), i = element % experts;
    logits(element / experts, i) += bias(i);
  }
};

// One row for each expert.
template <class T, class M, class Space>
struct owner_bias_backward_row {
  owner_bias<T, M, Space> bias;
  view<M, 1, Space> gradient;
  view<const M, 2, Space> d_logits;
  routing_pass<M, Space> pass;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t i) const {
    if (!bias.live(i)) return;
    const M sum = group.sum(d_logits.extent(0), [&](index_t t) { return pass.padding(t) ? M(0) : d_logits(t, i); });
    group.single([&] { gradient[i] += sum; });
  }
};

}  // namespace detail

// l_0 = r_0 . x,  l_i = r_i . x + min(b_i, 0) for i > 0;  dr_i = dl_i x,  db_i = dl_i [b_i < 0].
// Expert 0 is the public one: its bias is never read. A bias below zero moves the boundary between an owner's expert
// and the public one towards the owner's data. A bias of zero or above does nothing and has no gradient, so it starts
// at bias = -0.01, where it is live. rows start as N(0, stddev^2).
// Source: Shi et al., "FlexOlmo: open language models for flexible data use", 2025, arXiv 2507.07024; the form
// min(b, 0) is that of its code.
struct owner_gate {
  static constexpr auto options() {
    return std::tuple(option("stddev", &owner_gate::stddev), option("bias", &owner_gate::bias));
  }

  double stddev = 0.02;
  double bias = -0.01;

  template <class Leaf>
  using parameters = owner_gate_parameters<Leaf>;

  constexpr parameters<parameter_spec> specs(const transformer_shape& shape, index_t logits) const {
    return {parameter_spec::matrix(role::router, 1, shape.width, initializer::normal(stddev)).stacked(logits),
            parameter_spec::vector(role::router, 1, initializer::constant(bias)).stacked(logits)};
  }

  template <class Compute>
  struct saved {};

  template <class Compute>
  saved<Compute> forward(typename Compute::context_type& context,
                         const routing_pass<typename Compute::master, typename Compute::space>&,
                         const parameters<typename Compute::weight>& weights,
                         view<typename Compute::master, 2, typename Compute::space> logits,
                         view<const typename Compute::storage, 2, typename Compute::space> x) const {
    gemm_nt(context, logits, x, detail::all_rows(weights.rows), accumulate::no);
    launch_elements(
        context, logits.size(),
        detail::add_owner_bias<typename Compute::storage, typename Compute::master, typename Compute::space>{
            bias_of<Compute>(weights), logits});
    return {};
  }

  template <class Compute>
  void backward(typename Compute::context_type& context,
                const routing_pass<typename Compute::master, typename Compute::space>& pass,
                const parameters<typename Compute::weight>& weights,
                const parameters<typename Compute::gradient>& gradients, const saved<Compute>&,
                view<typename Compute::master, 2, typename Compute::space> d_logits,
                view<const typename Compute::storage, 2, typename Compute::space> x,
                view<typename Compute::storage, 2, typename Compute::space> d_x) const {
    using T = typename Compute::storage;
    using M = typename Compute::master;
    using space = typename Compute::space;
    if (gradients.bias.present())
      launch_rows(context, d_logits.extent(1), d_logits.extent(0),
                  detail::owner_bias_backward_row<T, M, space>{
                      bias_of<Compute>(weights), view<M, 1, space>(gradients.bias.data, gradients.bias.experts),
                      d_logits, pass});
    detail::gate_product_backward<Compute>(context, detail::all_rows(weights.rows), detail::all_rows(gradients.rows),
                                           d_logits, x, d_x);
  }

 private:
  template <class Compute>
  static detail::owner_bias<typename Compute::storage, typename Compute::master, typename Compute::space> bias_of(
      const parameters<typename Compute::weight>& weights) {
    return {view<const typename Compute::storage, 1, typename Compute::space>(weights.bias.data, weights.bias.experts)};
  }
};
static_assert(Gate<owner_gate>, "graft::owner_gate: it is not a Gate. See what policies/gate/gate.hpp asks for.");

}  // namespace graft
