// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Attention experts as a layer: gradients by central differences for every form, the equation over single attentions,
// the choice of the K largest, and what a token may depend on.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <graft/layers/attention_experts.hpp>

#include "layer_check.hpp"
#include "shuffled_context.hpp"

namespace attention_experts_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <class Leaf>
using moa_tree = attention_experts::parameters<Leaf>;
using owned_moa = owned_layer<moa_tree>;

transformer_shape small(bool qk_norm, index_t kv_heads = 2) {
  return {.vocabulary = 11,
          .width = 6,
          .blocks = 1,
          .heads = 4,
          .kv_heads = kv_heads,
          .head_dim = 4,
          .hidden = 5,
          .positions = 16,
          .qk_norm = qk_norm};
}

// A pass over whole sequences and what it points to.
struct whole_sequences {
  context<cpu> ctx{{.threads = 1}};
  transformer_shape shape;
  index_t positions;
  std::vector<double> table;

  whole_sequences(const transformer_shape& of, index_t length)
      : shape(of), positions(length), table(rope_table<double>(of, length)) {}
  block_pass<exact> pass() {
    return {ctx, shape, matrix_view<const double>(table.data(), positions, shape.head_dim), positions, {}};
  }
  tensor<double> output(const attention_experts& moa, owned_moa& layer, const tensor<double>& x) {
    workspace_scope scope(ctx);
    tensor<double> out(x.rows, x.columns, 1e300);
    moa.forward<exact>(pass(), layer.weights(), x.matrix(), out.matrix());
    return out;
  }
};

// The output of expert i alone, through self_attention_forward and its adapter.
tensor<double> single_output(whole_sequences& on, const attention_experts& moa, owned_moa& layer, index_t expert,
                             const tensor<double>& x) {
  owned_layer<self_attention_parameters> single(self_attention_specs(on.shape));
  const std::string own = "experts." + std::to_string(expert) + ".";
  for (const tensor_entry& entry : single.layout.tensors) {
    const tensor_entry* common = layer.layout.find(entry.name);
    const tensor_entry& from = common != nullptr ? *common : layer.find(own + entry.name);
    REQUIRE(from.size() == entry.size());
    REQUIRE((common != nullptr) == (moa.shared_kv && (entry.name[0] == 'k' || entry.name[0] == 'v')));
    std::copy_n(layer.values.begin() + from.offset, entry.size(), single.values.begin() + entry.offset);
  }
  workspace_scope scope(on.ctx);
  tensor<double> out(x.rows, x.columns);
  self_attention_forward<exact>(on.ctx, on.shape, single.weights(), on.pass().rope, on.positions, x.matrix(),
                                out.matrix());
  if (!moa.adapters) return out;
  tensor<double> adapter(x.columns, x.columns);
  std::copy_n(layer.tensor_values(own + "adapter.weight"), adapter.values.size(), adapter.values.begin());
  return reference_linear(out, adapter);
}

}  // namespace

TEST_CASE("layers: attention_experts gradients by central differences", "[layers]") {
  const attention_experts moa =
      GENERATE(attention_experts{.experts = 3}, attention_experts{.experts = 3, .experts_per_token = 2},
               attention_experts{.experts = 2, .shared_kv = true}, attention_experts{.experts = 2, .adapters = true},
               attention_experts{.experts = 3, .experts_per_token = 1, .shared_kv = true, .adapters = true},
               attention_experts{.experts = 1, .shared_kv = true});
  const bool qk_norm = GENERATE(false, true);
  const index_t kv_heads = GENERATE(1, 2);
  CAPTURE(moa.experts, moa.experts_per_token, moa.shared_kv, moa.adapters, qk_norm, kv_heads);
  whole_sequences on(small(qk_norm, kv_heads), 3);
  owned_moa layer(moa.specs(on.shape));
  tensor<double> x = tensor<double>::random(6, 6, 2);
  CHECK(layer_mismatch(
            on.ctx, layer, x,
            [&](const auto& weights, auto in, auto out) { return moa.forward<exact>(on.pass(), weights, in, out); },
            [](const auto&) { return 0.0; },
            [&](const auto& weights, const auto& gradients, const auto& saved, auto in, auto d_in, auto d_out) {
              moa.backward<exact>(on.pass(), weights, gradients, saved, in, d_in, d_out);
            }) == "");
}

TEST_CASE("layers: attention_experts are their attentions by the softmax of the router", "[layers]") {
  const attention_experts moa =
      GENERATE(attention_experts{.experts = 3}, attention_experts{.experts = 3, .experts_per_token = 2},
               attention_experts{.experts = 3, .experts_per_token = 1, .adapters = true},
               attention_experts{.experts = 3, .shared_kv = true});
  const bool qk_norm = GENERATE(false, true);
  CAPTURE(moa.experts_per_token, moa.shared_kv, moa.adapters, qk_norm);
  whole_sequences on(small(qk_norm), 5);
  owned_moa layer(moa.specs(on.shape), 3);
  const tensor<double> x = tensor<double>::random(10, 6, 2), got = on.output(moa, layer, x);

  tensor<double> gate(3, 6), want(10, 6);
  std::copy_n(layer.tensor_values("gate.weight"), gate.values.size(), gate.values.begin());
  const tensor<double> logits = reference_linear(x, gate);
  index_t dropped = 0;
  for (index_t expert = 0; expert < 3; ++expert) {
    const tensor<double> single = single_output(on, moa, layer, expert, x);
    for (index_t t = 0; t < x.rows; ++t) {
      std::vector<double> kept;
      for (index_t i = 0; i < 3; ++i) kept.push_back(logits.at(t, i));
      std::sort(kept.rbegin(), kept.rend());
      if (moa.experts_per_token > 0) kept.resize(static_cast<std::size_t>(moa.experts_per_token));
      double sum = 0;
      for (const double l : kept) sum += std::exp(l);
      const bool chosen = logits.at(t, expert) >= kept.back();
      dropped += chosen ? 0 : 1;
      for (index_t c = 0; chosen && c < 6; ++c) want(t, c) += std::exp(logits.at(t, expert)) / sum * single.at(t, c);
    }
  }
  CHECK(dropped == (moa.experts_per_token > 0 ? 10 * (3 - moa.experts_per_token) : 0));
  // Sums of at most 20 products of numbers below 30, a softmax and a sum of three.
  CHECK(mismatch(got, want, [](index_t, index_t) { return 1e-12; }) == "");
}

TEST_CASE("layers: attention_experts: equal logits go to the lower experts", "[layers]") {
  const attention_experts moa{.experts = 3, .experts_per_token = 2};
  whole_sequences on(small(false), 3);
  owned_moa layer(moa.specs(on.shape), 3);
  std::fill_n(layer.tensor_values("gate.weight"), 18, 0.0);
  const tensor<double> x = tensor<double>::random(3, 6, 2), got = on.output(moa, layer, x);
  const tensor<double> a = single_output(on, moa, layer, 0, x), b = single_output(on, moa, layer, 1, x);
  tensor<double> want(3, 6);
  for (std::size_t i = 0; i < want.values.size(); ++i) want.values[i] = 0.5 * (a.values[i] + b.values[i]);
  CHECK(mismatch(got, want, [](index_t, index_t) { return 1e-12; }) == "");
}

TEST_CASE("layers: attention_experts: a token's output depends on no later token and no other sequence", "[layers]") {
  const attention_experts moa{.experts = 2, .experts_per_token = GENERATE(0, 1), .shared_kv = GENERATE(false, true)};
  whole_sequences on(small(true), 4);
  owned_moa layer(moa.specs(on.shape), 3);
  tensor<double> x = tensor<double>::random(8, 6, 2);
  const tensor<double> before = on.output(moa, layer, x);
  for (index_t c = 0; c < 6; ++c) x(2, c) += 1;  // position 2 of the first sequence
  const tensor<double> after = on.output(moa, layer, x);
  for (index_t t = 0; t < 8; ++t) {
    CAPTURE(t);
    CHECK(std::equal(before.values.begin() + t * 6, before.values.begin() + (t + 1) * 6,
                     after.values.begin() + t * 6) == (t != 2 && t != 3));
  }
}

// The row algorithms by members of a group in any order: results differ by the rounding of reordered sums alone.
TEST_CASE("layers: attention_experts in a shuffled context", "[layers]") {
  struct shuffled : exact {
    using context_type = shuffled_context;
  };
  const attention_experts moa = GENERATE(attention_experts{.experts = 3, .experts_per_token = 2, .adapters = true},
                                         attention_experts{.experts = 3, .shared_kv = true});
  whole_sequences on(small(true), 4);
  owned_moa layer(moa.specs(on.shape), 3);
  const tensor<double> x = tensor<double>::random(8, 6, 2), d_out = tensor<double>::random(8, 6, 4);
  // Everything that a pass writes: output, gradient to the input, gradients of the weights.
  const auto run = [&](auto compute_type, auto& ctx) {
    using C = decltype(compute_type);
    workspace_scope scope(ctx);
    std::fill(layer.gradients.begin(), layer.gradients.end(), 0.0);
    tensor<double> out(8, 6, 1e300), d_x(8, 6, 1e300);
    const block_pass<C> pass{ctx, on.shape, on.pass().rope, on.positions, {}};
    const auto saved = moa.forward<C>(pass, layer.weights(), x.matrix(), out.matrix());
    moa.backward<C>(pass, layer.weights(), layer.gradient_views(), saved, x.matrix(), d_x.matrix(), d_out.matrix());
    std::vector<double> all = layer.gradients;
    all.insert(all.end(), out.values.begin(), out.values.end());
    all.insert(all.end(), d_x.values.begin(), d_x.values.end());
    return all;
  };
  shuffled_context ctx(5);
  const std::vector<double> want = run(exact{}, on.ctx), got = run(shuffled{}, ctx);
  double largest = 0, apart = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::abs(want[i]));
    apart = std::max(apart, std::abs(want[i] - got[i]));
  }
  CHECK(largest > 1);
  CHECK(apart < 1e-12 * largest);
}

TEST_CASE("layers: attention_experts: names, extents and refusals", "[layers]") {
  const transformer_shape shape = small(true);
  const auto names = [&](const attention_experts& moa) {
    std::string all;
    for (const tensor_entry& entry : make_layout(moa.specs(shape)).tensors)
      all += entry.name + ":" + std::to_string(entry.rows) + "x" + std::to_string(entry.columns) + " ";
    return all;
  };
  CHECK(names({.experts = 1, .adapters = true}) ==
        "gate.weight:1x6 experts.0.q_proj.weight:16x6 experts.0.k_proj.weight:8x6 experts.0.v_proj.weight:8x6 "
        "experts.0.o_proj.weight:6x16 experts.0.q_norm.weight:4x0 experts.0.k_norm.weight:4x0 "
        "experts.0.adapter.weight:6x6 ");
  CHECK(names({.experts = 2, .shared_kv = true}) ==
        "gate.weight:2x6 k_proj.weight:8x6 v_proj.weight:8x6 k_norm.weight:4x0 experts.0.q_proj.weight:16x6 "
        "experts.1.q_proj.weight:16x6 experts.0.o_proj.weight:6x16 experts.1.o_proj.weight:6x16 "
        "experts.0.q_norm.weight:4x0 experts.1.q_norm.weight:4x0 ");
  CHECK(attention_experts{.experts = 3}.cache_width(shape) == 3 * 16);
  CHECK(attention_experts{.experts = 3, .shared_kv = true}.cache_width(shape) == 16);
  CHECK_THROWS_WITH(attention_experts{}.check(shape), Catch::Contains("got experts=0, experts_per_token=0"));
  CHECK_THROWS_WITH((attention_experts{.experts = 2, .experts_per_token = 3}.check(shape)),
                    Catch::Contains("got experts=2, experts_per_token=3"));
}

}  // namespace attention_experts_tests
