// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The dense feed-forward layer: FFN(x) = (silu(x W_gate^T) * (x W_up^T)) W_down^T.

#include <graft/backend/arena.hpp>
#include <graft/layers/compute.hpp>
#include <graft/ops/swiglu.hpp>

namespace graft {

template <class Leaf>
struct swiglu_ffn_parameters {
  BOOST_HANA_DEFINE_STRUCT(swiglu_ffn_parameters, (Leaf, gate_up_proj), (Leaf, down_proj));
};

constexpr swiglu_ffn_parameters<parameter_spec> swiglu_ffn_specs(index_t width, index_t hidden) {
  const initializer into = initializer::normal(0.02);
  swiglu_ffn_parameters<parameter_spec> specs;
  specs.gate_up_proj = parameter_spec::fused(role::ffn, {{"gate_proj", hidden}, {"up_proj", hidden}}, width, into);
  specs.down_proj = parameter_spec::matrix(role::ffn, width, hidden, into);
  return specs;
}

template <class Compute>
struct swiglu_ffn_saved {
  view<typename Compute::storage, 2, typename Compute::space> gate_up;  // (T, 2F)
  view<typename Compute::storage, 2, typename Compute::space> hidden;   // (T, F)
};

// Shapes: x, out (T, D).
template <class Compute>
swiglu_ffn_saved<Compute> swiglu_ffn_forward(typename Compute::context_type& context,
                                             const swiglu_ffn_parameters<typename Compute::weight>& weights,
                                             view<const typename Compute::storage, 2, typename Compute::space> x,
                                             view<typename Compute::storage, 2, typename Compute::space> out) {
  using T = typename Compute::storage;
  swiglu_ffn_saved<Compute> saved;
  saved.gate_up = context.template allocate<T>(x.extent(0), weights.gate_up_proj.rows);
  saved.hidden = context.template allocate<T>(x.extent(0), weights.down_proj.columns);
  gemm_nt(context, saved.gate_up, x, weights.gate_up_proj.matrix(), accumulate::no);
  swiglu_forward(context, saved.hidden, saved.gate_up);
  gemm_nt(context, out, saved.hidden, weights.down_proj.matrix(), accumulate::no);
  return saved;
}

// d_x = the gradient to x; gradients of the weights are added where they are present. Overwrites what was saved.
template <class Compute>
void swiglu_ffn_backward(typename Compute::context_type& context,
                         const swiglu_ffn_parameters<typename Compute::weight>& weights,
                         const swiglu_ffn_parameters<typename Compute::gradient>& gradients,
                         const swiglu_ffn_saved<Compute>& saved,
                         view<const typename Compute::storage, 2, typename Compute::space> x,
                         view<typename Compute::storage, 2, typename Compute::space> d_x,
                         view<const typename Compute::storage, 2, typename Compute::space> d_out) {
  if (gradients.down_proj.present())
    gemm_tn(context, gradients.down_proj.matrix(), d_out, saved.hidden, accumulate::yes);
  gemm_nn(context, saved.hidden, d_out, weights.down_proj.matrix(),
          accumulate::no);  // hidden is spent: it holds its gradient now
  swiglu_backward(context, saved.gate_up, saved.hidden, saved.gate_up);
  gemm_nn(context, d_x, saved.gate_up, weights.gate_up_proj.matrix(), accumulate::no);
  if (gradients.gate_up_proj.present())
    gemm_tn(context, gradients.gate_up_proj.matrix(), saved.gate_up, x, accumulate::yes);
}

}  // namespace graft
