// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Attention, the dense feed-forward layer and the dense block: gradients by central differences, and what they are
// known to equal.

#include "catch.hpp"

#include <cmath>
#include <vector>

#include <graft/layers/block.hpp>

#include "layer_check.hpp"

namespace dense_tests {

using namespace graft;
using namespace graft::test;

namespace {

transformer_shape small(index_t heads, index_t kv_heads, bool qk_norm) {
  return {.vocabulary = 11,
          .width = 6,
          .blocks = 1,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_dim = 4,
          .hidden = 5,
          .positions = 16,
          .qk_norm = qk_norm};
}

template <class Leaf>
using dense_block = block_parameters<Leaf, no_mixture>;

}  // namespace

TEST_CASE("layers: self_attention gradients by central differences", "[layers]") {
  struct heads {
    index_t query, key;
  };
  const heads count = GENERATE(heads{1, 1}, heads{4, 4}, heads{4, 2}, heads{3, 1});
  const bool qk_norm = GENERATE(false, true);
  const index_t positions = GENERATE(1, 5);
  CAPTURE(count.query, count.key, qk_norm, positions);
  const transformer_shape shape = small(count.query, count.key, qk_norm);
  context<cpu> ctx({.threads = 1});
  owned_layer<self_attention_parameters> layer(self_attention_specs(shape));
  tensor<double> x = tensor<double>::random(2 * positions, shape.width, 2);
  const std::vector<double> table = rope_table<double>(shape, positions);
  const matrix_view<const double> rope(table.data(), positions, shape.head_dim);
  CHECK(layer_mismatch(
            ctx, layer, x,
            [&](const auto& weights, auto in, auto out) {
              return self_attention_forward<exact>(ctx, shape, weights, rope, positions, in, out);
            },
            [](const auto&) { return 0.0; },
            [&](const auto& weights, const auto& gradients, const auto& saved, auto in, auto d_in, auto d_out) {
              self_attention_backward<exact>(ctx, shape, weights, gradients, rope, positions, saved, in, d_in, d_out);
            }) == "");
}

// y = softmax(q k^T / sqrt(d)) v W_o^T, written out, with rotated halves and a norm per head.
TEST_CASE("layers: self_attention against the equation", "[layers]") {
  const bool qk_norm = GENERATE(false, true);
  const transformer_shape shape = small(4, 2, qk_norm);
  const index_t positions = 5, sequences = 2, d = shape.head_dim, half = d / 2;
  context<cpu> ctx({.threads = 1});
  owned_layer<self_attention_parameters> layer(self_attention_specs(shape));
  tensor<double> x = tensor<double>::random(sequences * positions, shape.width, 2),
                 out(sequences * positions, shape.width);
  const std::vector<double> table = rope_table<double>(shape, positions);
  const auto weights = layer.weights();
  self_attention_forward<exact>(ctx, shape, weights, matrix_view<const double>(table.data(), positions, d), positions,
                                x.matrix(), out.matrix());

  const auto project = [&](const char* name, index_t rows) {
    tensor<double> w(rows, shape.width);
    std::copy_n(layer.tensor_values(std::string(name) + ".weight"), w.values.size(), w.values.begin());
    return reference_linear(x, w);
  };
  tensor<double> q = project("q_proj", 4 * d), k = project("k_proj", 2 * d), v = project("v_proj", 2 * d);
  const auto prepare = [&](tensor<double>& heads, const char* norm) {
    for (index_t t = 0; t < heads.rows; ++t) {
      for (index_t h = 0; h < heads.columns / d; ++h) {
        double square = 0;
        for (index_t i = 0; i < d; ++i) square += heads.at(t, h * d + i) * heads.at(t, h * d + i);
        for (index_t i = 0; qk_norm && i < d; ++i)
          heads(t, h * d + i) *=
              layer.tensor_values(norm)[i] / std::sqrt(square / static_cast<double>(d) + shape.norm_eps);
        for (index_t i = 0; i < half; ++i) {
          const double angle = static_cast<double>(t % positions) *
                               std::pow(shape.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(d));
          const double a = heads.at(t, h * d + i), b = heads.at(t, h * d + half + i);
          heads(t, h * d + i) = a * std::cos(angle) - b * std::sin(angle);
          heads(t, h * d + half + i) = b * std::cos(angle) + a * std::sin(angle);
        }
      }
    }
  };
  prepare(q, "q_norm.weight");
  prepare(k, "k_norm.weight");
  tensor<double> attended(x.rows, 4 * d);
  for (index_t t = 0; t < x.rows; ++t) {
    for (index_t h = 0; h < 4; ++h) {
      const index_t first = t / positions * positions, g = h / 2;
      std::vector<double> p;
      double sum = 0;
      for (index_t s = first; s <= t; ++s) {
        double dot = 0;
        for (index_t i = 0; i < d; ++i) dot += q.at(t, h * d + i) * k.at(s, g * d + i);
        p.push_back(std::exp(dot / std::sqrt(static_cast<double>(d))));
        sum += p.back();
      }
      for (index_t s = first; s <= t; ++s)
        for (index_t i = 0; i < d; ++i)
          attended(t, h * d + i) += p[static_cast<std::size_t>(s - first)] / sum * v.at(s, g * d + i);
    }
  }
  tensor<double> o(shape.width, 4 * d);
  std::copy_n(layer.tensor_values("o_proj.weight"), o.values.size(), o.values.begin());
  // Some hundred operations on numbers below 100, the exponential of a score of about 10 among them.
  CHECK(mismatch(out, reference_linear(attended, o), [](index_t, index_t) { return 1e-11; }) == "");
}

TEST_CASE("layers: swiglu_ffn gradients by central differences, and its equation", "[layers]") {
  const transformer_shape shape = small(1, 1, false);
  context<cpu> ctx({.threads = 1});
  owned_layer<swiglu_ffn_parameters> layer(swiglu_ffn_specs(shape.width, shape.hidden));
  tensor<double> x = tensor<double>::random(7, shape.width, 2), out(7, shape.width);
  CHECK(layer_mismatch(
            ctx, layer, x,
            [&](const auto& weights, auto in, auto y) { return swiglu_ffn_forward<exact>(ctx, weights, in, y); },
            [](const auto&) { return 0.0; },
            [&](const auto& weights, const auto& gradients, const auto& saved, auto in, auto d_in, auto d_out) {
              swiglu_ffn_backward<exact>(ctx, weights, gradients, saved, in, d_in, d_out);
            }) == "");

  swiglu_ffn_forward<exact>(ctx, layer.weights(), x.matrix(), out.matrix());
  const auto matrix = [&](const char* name, index_t rows, index_t columns) {
    tensor<double> w(rows, columns);
    std::copy_n(layer.tensor_values(name), w.values.size(), w.values.begin());
    return w;
  };
  const tensor<double> gate = reference_linear(x, matrix("gate_proj.weight", shape.hidden, shape.width));
  tensor<double> hidden = reference_linear(x, matrix("up_proj.weight", shape.hidden, shape.width));
  for (std::size_t i = 0; i < hidden.values.size(); ++i)
    hidden.values[i] *= gate.values[i] / (1 + std::exp(-gate.values[i]));
  // Sums of 6 and 5 terms of about 1.
  CHECK(mismatch(out, reference_linear(hidden, matrix("down_proj.weight", shape.width, shape.hidden)),
                 [](index_t, index_t) { return 1e-13; }) == "");
}

TEST_CASE("layers: dense block gradients by central differences", "[layers]") {
  const bool qk_norm = GENERATE(false, true);
  const bool keep = GENERATE(false, true);
  const transformer_shape shape = small(2, 1, qk_norm);
  const index_t positions = 3;
  context<cpu> ctx({.threads = 1});
  owned_layer<dense_block> layer(block_specs(shape, no_mixture{}, 0));
  tensor<double> x = tensor<double>::random(2 * positions, shape.width, 2);
  const std::vector<double> table = rope_table<double>(shape, positions);
  const block_pass<exact> pass{
      ctx, shape, matrix_view<const double>(table.data(), positions, shape.head_dim), positions, {}};
  // The stream before the block is x - delta0 with delta0 fixed: x stands for the sum.
  const tensor<double> delta0 = tensor<double>::random(x.rows, x.columns, 3);
  const auto forward = [&](const auto& weights, matrix_view<double> in, matrix_view<double> out) {
    auto stream = ctx.allocate<double>(x.rows, x.columns), delta = ctx.allocate<double>(x.rows, x.columns);
    for (index_t i = 0; i < in.size(); ++i) {
      stream.data[i] = in.data[i] - delta0.values[static_cast<std::size_t>(i)];
      delta.data[i] = delta0.values[static_cast<std::size_t>(i)];
    }
    const auto saved = block_forward<no_mixture, exact>(pass, {}, weights, stream, delta, delta, true);
    for (index_t i = 0; i < in.size(); ++i) out.data[i] = stream.data[i] + delta.data[i];
    if (!keep) {  // the pass that keeps nothing gives the same bits
      for (index_t i = 0; i < in.size(); ++i) delta.data[i] = in.data[i];
      auto in_place = ctx.allocate<double>(x.rows, x.columns), other = ctx.allocate<double>(x.rows, x.columns);
      for (index_t i = 0; i < in.size(); ++i) {
        in_place.data[i] = in.data[i] - delta0.values[static_cast<std::size_t>(i)];
        other.data[i] = delta0.values[static_cast<std::size_t>(i)];
      }
      const double* memory = in_place.data;
      block_forward<no_mixture, exact>(pass, {}, weights, in_place, other, other, false);
      REQUIRE(in_place.data == memory);
      for (index_t i = 0; i < in.size(); ++i) REQUIRE(in_place.data[i] + other.data[i] == out.data[i]);
    }
    return saved;
  };
  CHECK(layer_mismatch(
            ctx, layer, x, forward, [](const auto&) { return 0.0; },
            [&](const auto& weights, const auto& gradients, const auto& saved, auto, matrix_view<double> d_in,
                auto d_out) {
              for (index_t i = 0; i < d_in.size(); ++i) d_in.data[i] = d_out.data[i];
              block_backward<no_mixture, exact>(pass, {}, weights, gradients, saved, d_in, 1.0);
            }) == "");
}

// An absent gradient (a frozen parameter) changes nothing for the others.
TEST_CASE("layers: frozen parameters of a dense block leave the other gradients alone", "[layers]") {
  const transformer_shape shape = small(2, 1, true);
  const index_t positions = 3;
  context<cpu> ctx({.threads = 1});
  owned_layer<dense_block> layer(block_specs(shape, no_mixture{}, 0));
  const tensor<double> x = tensor<double>::random(positions, shape.width, 2),
                       probe = tensor<double>::random(positions, shape.width, 4);
  const std::vector<double> table = rope_table<double>(shape, positions);
  const block_pass<exact> pass{
      ctx, shape, matrix_view<const double>(table.data(), positions, shape.head_dim), positions, {}};
  const auto run = [&](const dense_block<exact::gradient>& gradients) {
    std::fill(layer.gradients.begin(), layer.gradients.end(), 0.0);
    workspace_scope scope(ctx);
    tensor<double> stream = x, delta(positions, shape.width), d = probe;
    auto stream_view = stream.matrix();
    const auto saved =
        block_forward<no_mixture, exact>(pass, {}, layer.weights(), stream_view, {}, delta.matrix(), true);
    block_backward<no_mixture, exact>(pass, {}, layer.weights(), gradients, saved, d.matrix(), 1.0);
    return d.values;
  };
  const std::vector<double> d_all = run(layer.gradient_views());
  const std::vector<double> all = layer.gradients;
  int leaves = 0;
  for_each_leaf(layer.specs, [&](const parameter_spec& spec) { leaves += spec.present() ? 1 : 0; });
  CHECK(leaves == 8);
  for (int frozen = 0; frozen < leaves; ++frozen) {
    dense_block<exact::gradient> views = layer.gradient_views();
    int at = 0;
    std::size_t begin = 0, end = 0;
    zip_leaves(layer.specs, views, [&](const parameter_spec& spec, exact::gradient& leaf) {
      if (!spec.present() || at++ != frozen) return;
      begin = static_cast<std::size_t>(leaf.data - layer.gradients.data());
      end = begin + static_cast<std::size_t>(spec.size());
      leaf = {};
    });
    CHECK(run(views) == d_all);
    for (std::size_t i = 0; i < all.size(); ++i) REQUIRE(layer.gradients[i] == (i >= begin && i < end ? 0.0 : all[i]));
  }
}

}  // namespace dense_tests
