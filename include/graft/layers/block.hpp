// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A pre-norm transformer block: attention and a feed-forward layer, dense or a mixture, each behind an RMSNorm and
// added to the residual stream.
//
//   h1 = x + delta;  delta1 = Attention(norm(h1));  h2 = h1 + delta1;  delta2 = FFN(norm(h2))
//
// The last addition is left to the next block's first norm, which reads the stream anyway.

#include <graft/layers/moe.hpp>
#include <graft/layers/self_attention.hpp>
#include <graft/layers/swiglu_ffn.hpp>
#include <graft/ops/rms_norm.hpp>

namespace graft {

// What stands in the place of a mixture in a dense model.
struct no_mixture {
  static constexpr bool present = false;
  template <class Leaf>
  struct parameters {
    BOOST_HANA_DEFINE_STRUCT(parameters);
  };
  constexpr parameters<parameter_spec> specs(const transformer_shape&) const { return {}; }
  void check(const transformer_shape& shape) const {
    GRAFT_CHECK(shape.experts == 0, "dense_transformer: expected a shape without experts, got experts=", shape.experts);
  }
};

template <Router R, Balancer B, ExpertLayout L>
struct mixture : moe_policies<R, B, L> {
  static constexpr bool present = true;
  template <class Leaf>
  using parameters = moe_parameters<Leaf>;
};

template <class Leaf, class Mixture>
struct block_parameters {
  using mixture_parameters = typename Mixture::template parameters<Leaf>;
  BOOST_HANA_DEFINE_STRUCT(block_parameters, (Leaf, input_layernorm), (self_attention_parameters<Leaf>, self_attn),
                           (Leaf, post_attention_layernorm), (swiglu_ffn_parameters<Leaf>, mlp),
                           (mixture_parameters, block_sparse_moe));
};

template <class Mixture>
constexpr block_parameters<parameter_spec, Mixture> block_specs(const transformer_shape& shape,
                                                                const Mixture& mixture) {
  block_parameters<parameter_spec, Mixture> specs;
  specs.input_layernorm = parameter_spec::vector(role::norm, shape.width, initializer::ones());
  specs.self_attn = self_attention_specs(shape);
  specs.post_attention_layernorm = parameter_spec::vector(role::norm, shape.width, initializer::ones());
  if constexpr (Mixture::present)
    specs.block_sparse_moe = mixture.specs(shape);
  else
    specs.mlp = swiglu_ffn_specs(shape);
  return specs;
}

template <class Mixture, class Compute>
struct block_saved {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using space = typename Compute::space;
  view<T, 2, space> stream_attention, normed_attention;  // (T, D)
  view<M, 1, space> inverse_rms_attention;               // (T)
  self_attention_saved<Compute> attention;
  view<T, 2, space> stream_ffn, normed_ffn;  // (T, D)
  view<M, 1, space> inverse_rms_ffn;         // (T)
  swiglu_ffn_saved<Compute> dense;
  moe_saved<Compute> moe;
};

// What every block of one pass is given.
template <class Compute>
struct block_pass {
  typename Compute::context_type& context;
  const transformer_shape& shape;
  view<const typename Compute::master, 2, typename Compute::space> rope;
  index_t positions;  // S
  index_t balance_groups;
};

// The residual stream is stream + delta_in, both (T, D); stream and delta are replaced by this block's. delta_in is
// delta itself, or absent in front of the first block. With keep_streams the new streams are new memory, so that the
// backward pass finds them; without, they are written in place.
template <class Mixture, class Compute>
block_saved<Mixture, Compute> block_forward(const block_pass<Compute>& pass, const Mixture& mixture,
                                            const block_parameters<typename Compute::weight, Mixture>& weights,
                                            view<typename Compute::storage, 2, typename Compute::space>& stream,
                                            view<const typename Compute::storage, 2, typename Compute::space> delta_in,
                                            view<typename Compute::storage, 2, typename Compute::space> delta,
                                            bool keep_streams) {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  auto& context = pass.context;
  const index_t rows = stream.extent(0), width = stream.extent(1);
  block_saved<Mixture, Compute> saved;
  const auto next_stream = [&] { return keep_streams ? context.template allocate<T>(rows, width) : stream; };

  saved.stream_attention = next_stream();
  saved.normed_attention = context.template allocate<T>(rows, width);
  saved.inverse_rms_attention = context.template allocate<M>(rows);
  add_rms_norm_forward(context, saved.stream_attention, saved.normed_attention, saved.inverse_rms_attention, stream,
                       delta_in, weights.input_layernorm.vector(), pass.shape.norm_eps);
  saved.attention = self_attention_forward<Compute>(context, pass.shape, weights.self_attn, pass.rope, pass.positions,
                                                    saved.normed_attention, delta);

  stream = saved.stream_attention;
  saved.stream_ffn = next_stream();
  saved.normed_ffn = context.template allocate<T>(rows, width);
  saved.inverse_rms_ffn = context.template allocate<M>(rows);
  add_rms_norm_forward(context, saved.stream_ffn, saved.normed_ffn, saved.inverse_rms_ffn, stream, delta,
                       weights.post_attention_layernorm.vector(), pass.shape.norm_eps);
  stream = saved.stream_ffn;
  if constexpr (Mixture::present)
    saved.moe =
        moe_forward<Compute>(context, mixture, weights.block_sparse_moe, saved.normed_ffn, delta, pass.balance_groups);
  else
    saved.dense = swiglu_ffn_forward<Compute>(context, weights.mlp, saved.normed_ffn, delta);
  return saved;
}

// d_stream: the gradient to stream + delta after the block, replaced by the gradient to stream + delta before it. The
// gradient to a sum is the gradient to each of its terms, so delta needs none of its own.
template <class Mixture, class Compute>
void block_backward(const block_pass<Compute>& pass, const Mixture& mixture,
                    const block_parameters<typename Compute::weight, Mixture>& weights,
                    const block_parameters<typename Compute::gradient, Mixture>& gradients,
                    const block_saved<Mixture, Compute>& saved,
                    view<typename Compute::storage, 2, typename Compute::space> d_stream, double auxiliary_scale) {
  using T = typename Compute::storage;
  auto& context = pass.context;
  workspace_scope scope(context);
  auto d_normed = context.template allocate<T>(d_stream.extent(0), d_stream.extent(1));
  if constexpr (Mixture::present)
    moe_backward<Compute>(context, mixture, weights.block_sparse_moe, gradients.block_sparse_moe, saved.moe,
                          saved.normed_ffn, d_normed, d_stream, auxiliary_scale);
  else
    swiglu_ffn_backward<Compute>(context, weights.mlp, gradients.mlp, saved.dense, saved.normed_ffn, d_normed,
                                 d_stream);
  rms_norm_backward(context, d_stream, gradients.post_attention_layernorm.vector(), d_normed, saved.stream_ffn,
                    saved.inverse_rms_ffn, weights.post_attention_layernorm.vector(), accumulate::yes);

  self_attention_backward<Compute>(context, pass.shape, weights.self_attn, gradients.self_attn, pass.rope,
                                   pass.positions, saved.attention, saved.normed_attention, d_normed, d_stream);
  rms_norm_backward(context, d_stream, gradients.input_layernorm.vector(), d_normed, saved.stream_attention,
                    saved.inverse_rms_attention, weights.input_layernorm.vector(), accumulate::yes);
}

}  // namespace graft
