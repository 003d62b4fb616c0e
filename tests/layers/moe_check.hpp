// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A mixture-of-experts layer in double precision, and its experts written out.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <graft/layers/moe.hpp>
#include <graft/policies/balancer/all.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/balancer/z_loss.hpp>

#include "layer_check.hpp"

namespace graft::test {

using balancers = all<switch_loss, z_loss>;
inline constexpr balancers strong{.balancers = {switch_loss{.coefficient = 0.5}, {z_loss{.coefficient = 0.25}}}};

template <class Leaf>
using moe_tree = moe_parameters<Leaf, linear_gate, swiglu_experts>;
using owned_moe = owned_layer<moe_tree>;

inline transformer_shape shape_with_experts(index_t experts) {
  return {.vocabulary = 11,
          .width = 6,
          .blocks = 1,
          .heads = 2,
          .kv_heads = 1,
          .head_dim = 4,
          .hidden = 5,
          .positions = 16,
          .experts = experts};
}

inline routing_pass<double, host_space> pass_of(index_t experts, index_t groups = 1) {
  routing_pass<double, host_space> pass;
  pass.experts = experts;
  pass.balance_groups = groups;
  return pass;
}

template <class Policies>
std::string moe_mismatch(context<cpu>& ctx, owned_moe& layer, tensor<double>& x, const Policies& policies,
                         const routing_pass<double, host_space>& pass) {
  const double scale = 0.75;
  return layer_mismatch(
      ctx, layer, x,
      [&](const auto& weights, auto in, auto out) { return moe_forward<exact>(ctx, policies, weights, pass, in, out); },
      [&](const moe_saved<exact, Policies>& saved) {
        double auxiliary = 0;
        add_balance_loss(ctx, policies.balancer, saved.statistics, vector_view<double>(&auxiliary, 1));
        return scale * auxiliary;
      },
      [&](const auto& weights, const auto& gradients, const auto& saved, auto in, auto d_in, auto d_out) {
        moe_backward<exact>(ctx, policies, weights, gradients, pass, saved, in, d_in, d_out, scale);
      });
}

template <class Policies>
tensor<double> moe_output(const Policies& policies, owned_moe& layer, const tensor<double>& x) {
  context<cpu> ctx({.threads = 1});
  workspace_scope scope(ctx);
  tensor<double> out(x.rows, x.columns);
  moe_forward<exact>(ctx, policies, layer.weights(), pass_of(layer.specs.experts.w13.experts), x.matrix(),
                     out.matrix());
  return out;
}

// The matrix of a parameter.
inline tensor<double> values_of(owned_moe& layer, const std::string& name) {
  const tensor_entry& entry = layer.find(name + ".weight");
  tensor<double> w(entry.rows, entry.columns);
  std::copy_n(layer.values.data() + entry.offset, w.values.size(), w.values.begin());
  return w;
}

// (silu(x gate^T) * (x up^T)) down^T, written out.
inline tensor<double> ffn_by_hand(const tensor<double>& x, const tensor<double>& gate, const tensor<double>& up,
                                  const tensor<double>& down) {
  tensor<double> hidden = reference_linear(x, up);
  const tensor<double> gates = reference_linear(x, gate);
  for (std::size_t i = 0; i < hidden.values.size(); ++i)
    hidden.values[i] *= gates.values[i] / (1 + std::exp(-gates.values[i]));
  return reference_linear(hidden, down);
}
inline tensor<double> expert_output(owned_moe& layer, index_t expert, const tensor<double>& x) {
  const std::string name = "experts." + std::to_string(expert) + ".";
  return ffn_by_hand(x, values_of(layer, name + "w1"), values_of(layer, name + "w3"), values_of(layer, name + "w2"));
}

}  // namespace graft::test
