// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Soft merging of experts: gradients by central differences, the equations written out, the layers that it is known to
// equal, causality, dropout, and training. One file: all cases share the reference that is written out here.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <graft/layers/any_mixture.hpp>
#include <graft/layers/smear.hpp>
#include <graft/layers/swiglu_ffn.hpp>
#include <graft/models/counts.hpp>

#include "layer_check.hpp"
#include "shuffled_context.hpp"
#include "train/training_check.hpp"

namespace smear_tests {

using namespace graft;
using namespace graft::test;

namespace {

using causal_smear = smear_mixture<smear_mean::earlier_segments>;
using whole_smear = smear_mixture<smear_mean::sequence>;
using pass_type = routing_pass<double, host_space>;

constexpr index_t width = 6, hidden = 5, positions = 7, sequences = 2, rows = sequences * positions;

transformer_shape shape_with_experts(index_t experts) {
  return {.vocabulary = 11,
          .width = width,
          .blocks = 1,
          .heads = 2,
          .kv_heads = 1,
          .head_dim = 4,
          .hidden = hidden,
          .positions = 16,
          .experts = experts};
}

// Segments of 3, 3 and 1 tokens. Merged experts are made for 2 segments, or one sequence, at a time.
template <class Mixture>
Mixture small_mixture() {
  Mixture mixture;
  mixture.segment = 3;
  mixture.stddev = 0.5;
  mixture.rows_at_once = 6;
  return mixture;
}

struct pass_memory {
  std::vector<std::int32_t> ids = std::vector<std::int32_t>(static_cast<std::size_t>(rows), 1);
  std::vector<double> load;
  pass_type pass;

  explicit pass_memory(index_t experts, bool padding = false)
      : load(static_cast<std::size_t>(routing_load{experts}.size())) {
    if (padding) ids[1] = ids[7] = ids[8] = ids[9] = ids[13] = -1;  // all of the second sequence's first segment
    pass.experts = experts;
    pass.positions = positions;
    pass.ids = vector_view<const std::int32_t>(ids.data(), rows);
    pass.load = vector_view<double>(load.data(), static_cast<index_t>(load.size()));
    pass.at = {.seed = 3, .step = 2, .training = true};
    pass.layer = 1;
  }
};

template <class Mixture>
std::string smear_mismatch(context<cpu>& ctx, const Mixture& mixture, owned_layer<smear_parameters>& layer,
                           tensor<double>& x, const pass_type& pass) {
  return layer_mismatch(
      ctx, layer, x,
      [&](const auto& weights, auto in, auto out) {
        return mixture.template forward<exact>(ctx, weights, pass, in, out);
      },
      [](const auto&) { return 0.0; },
      [&](const auto& weights, const auto& gradients, const auto& saved, auto in, auto d_in, auto d_out) {
        mixture.template backward<exact>(ctx, weights, gradients, pass, saved, in, d_in, d_out, 1.0);
      });
}

template <class Mixture>
tensor<double> smear_output(const Mixture& mixture, owned_layer<smear_parameters>& layer, const tensor<double>& x,
                            const pass_type& pass) {
  context<cpu> ctx({.threads = 1});
  workspace_scope scope(ctx);
  tensor<double> out(x.rows, x.columns);
  mixture.template forward<exact>(ctx, layer.weights(), pass, x.matrix(), out.matrix());
  return out;
}

tensor<double> values_of(owned_layer<smear_parameters>& layer, const std::string& name) {
  const tensor_entry& entry = layer.find(name + ".weight");
  tensor<double> result(entry.columns > 0 ? entry.rows : 1, entry.columns > 0 ? entry.columns : entry.rows);
  std::copy_n(layer.values.data() + entry.offset, result.values.size(), result.values.begin());
  return result;
}

// (x - mean) / sqrt(variance + 1e-5)
std::vector<double> normalised(const std::vector<double>& x) {
  const double n = static_cast<double>(x.size());
  double mean = 0, variance = 0;
  for (const double value : x) mean += value / n;
  for (const double value : x) variance += (value - mean) * (value - mean) / n;
  std::vector<double> result;
  for (const double value : x) result.push_back((value - mean) / std::sqrt(variance + 1e-5));
  return result;
}

// p of the tokens [first, last) whose mean is over the tokens [from, to), from the equations.
std::vector<double> reference_p(owned_layer<smear_parameters>& layer, const tensor<double>& x,
                                const std::vector<std::int32_t>& ids, index_t from, index_t to, index_t experts,
                                double stddev, bool normalise) {
  std::vector<double> mean(width, 0);
  double count = 0;
  for (index_t t = from; t < to; ++t) count += ids[static_cast<std::size_t>(t)] >= 0 ? 1 : 0;
  for (index_t t = from; t < to; ++t)
    for (index_t i = 0; i < width; ++i)
      if (ids[static_cast<std::size_t>(t)] >= 0) mean[static_cast<std::size_t>(i)] += x.at(t, i) / count;
  std::vector<double> h = normalised(mean);
  const tensor<double> scale = values_of(layer, "norm"), shift = values_of(layer, "norm_shift"),
                       gate = values_of(layer, "gate"), bias = values_of(layer, "gate_bias");
  std::vector<double> p;
  double sum = 0;
  for (index_t e = 0; e < experts; ++e) {
    std::vector<double> row;
    for (index_t i = 0; i < width; ++i) row.push_back(gate.at(e, i));
    if (normalise) {
      row = normalised(row);
      const tensor<double> gate_scale = values_of(layer, "gate_scale");
      for (index_t i = 0; i < width; ++i) row[static_cast<std::size_t>(i)] *= stddev * gate_scale.at(0, i);
    }
    double logit = bias.at(0, e);
    for (index_t i = 0; i < width; ++i)
      logit += (h[static_cast<std::size_t>(i)] * scale.at(0, i) + shift.at(0, i)) * row[static_cast<std::size_t>(i)];
    p.push_back(std::exp(logit));
    sum += p.back();
  }
  for (double& share : p) share /= sum;
  return p;
}

tensor<double> reference_ffn(const tensor<double>& w1, const tensor<double>& w3, const tensor<double>& w2,
                             const tensor<double>& x) {
  tensor<double> inner = reference_linear(x, w3);
  const tensor<double> gate = reference_linear(x, w1);
  for (std::size_t i = 0; i < inner.values.size(); ++i)
    inner.values[i] *= gate.values[i] / (1 + std::exp(-gate.values[i]));
  return reference_linear(inner, w2);
}

tensor<double> merged_matrix(owned_layer<smear_parameters>& layer, const char* part, const std::vector<double>& p) {
  tensor<double> sum;
  for (std::size_t e = 0; e < p.size(); ++e) {
    const tensor<double> own = values_of(layer, "experts." + std::to_string(e) + "." + part);
    if (e == 0) sum = tensor<double>(own.rows, own.columns);
    for (std::size_t i = 0; i < own.values.size(); ++i) sum.values[i] += p[e] * own.values[i];
  }
  return sum;
}

struct reference_result {
  tensor<double> out{rows, width};
  std::vector<double> counts;
};

reference_result reference_smear(owned_layer<smear_parameters>& layer, const tensor<double>& x,
                                 const std::vector<std::int32_t>& ids, index_t experts, double stddev, bool normalise,
                                 bool causal, index_t segment) {
  reference_result result;
  result.counts.assign(static_cast<std::size_t>(experts), 0);
  for (index_t t = 0; t < rows; ++t) {
    const index_t start = t / positions * positions;
    const index_t own = start + (t - start) / segment * segment;  // where the segment of t begins
    const std::vector<double> p =
        reference_p(layer, x, ids, start, causal ? own : start + positions, experts, stddev, normalise);
    if (ids[static_cast<std::size_t>(t)] >= 0)
      for (std::size_t e = 0; e < p.size(); ++e) result.counts[e] += p[e];
    tensor<double> token(1, width);
    for (index_t i = 0; i < width; ++i) token(0, i) = x.at(t, i);
    const tensor<double> y = reference_ffn(merged_matrix(layer, "w1", p), merged_matrix(layer, "w3", p),
                                           merged_matrix(layer, "w2", p), token);
    for (index_t i = 0; i < width; ++i) result.out(t, i) = y.at(0, i);
  }
  return result;
}

template <class P>
using smear_model = transformer<causal_smear, compute<P, cpu>>;

struct shuffled_compute : exact {
  using context_type = shuffled_context;
};

}  // namespace

TEMPLATE_TEST_CASE("layers: smear gradients by central differences", "[layers]", causal_smear, whole_smear) {
  const index_t experts = GENERATE(1, 3);
  const bool normalise = GENERATE(true, false), padding = GENERATE(false, true);
  const double dropout = GENERATE(0.0, 0.4);
  CAPTURE(TestType::causal(), experts, normalise, padding, dropout);
  context<cpu> ctx({.threads = 1});
  TestType mixture = small_mixture<TestType>();
  mixture.normalise_gate = normalise;
  mixture.dropout = dropout;
  owned_layer<smear_parameters> layer(mixture.specs(shape_with_experts(experts)));
  tensor<double> x = tensor<double>::random(rows, width, 2);
  const pass_memory memory(experts, padding);
  CHECK(smear_mismatch(ctx, mixture, layer, x, memory.pass) == "");
}

TEMPLATE_TEST_CASE("layers: smear equals its equations", "[layers]", causal_smear, whole_smear) {
  const bool normalise = GENERATE(true, false), padding = GENERATE(false, true);
  CAPTURE(TestType::causal(), normalise, padding);
  TestType mixture = small_mixture<TestType>();
  mixture.normalise_gate = normalise;
  owned_layer<smear_parameters> layer(mixture.specs(shape_with_experts(3)));
  const tensor<double> x = tensor<double>::random(rows, width, 2);
  pass_memory memory(3, padding);
  const tensor<double> got = smear_output(mixture, layer, x, memory.pass);
  const reference_result want =
      reference_smear(layer, x, memory.ids, 3, mixture.stddev, normalise, TestType::causal(), mixture.segment);
  // Sums of up to 7 terms, twice, around two normalisations and a softmax: values of about 1.
  CHECK(mismatch(got, want.out, [](index_t, index_t) { return 1e-13; }) == "");
  // Counts: sums of p over 14 tokens. They add up to the tokens.
  const double tokens = padding ? 9 : 14;
  for (std::size_t e = 0; e < 3; ++e) CHECK(std::abs(memory.load[e] - want.counts[e]) < 1e-13);
  CHECK(std::abs(memory.load[0] + memory.load[1] + memory.load[2] - tokens) < 1e-13);
  const routing_load at{3};
  CHECK(memory.load[static_cast<std::size_t>(at.tokens())] == tokens);
  const double entropy = memory.load[static_cast<std::size_t>(at.entropy())];
  CHECK(entropy > 0);
  CHECK(entropy < tokens * std::log(3.0));
}

TEMPLATE_TEST_CASE("layers: smear of identical experts equals the dense layer", "[layers]", causal_smear, whole_smear) {
  const TestType mixture = small_mixture<TestType>();
  owned_layer<smear_parameters> layer(mixture.specs(shape_with_experts(4)));
  for (const char* part : {"w1", "w2", "w3"})
    for (index_t e = 1; e < 4; ++e)
      std::copy_n(layer.tensor_values(std::string("experts.0.") + part + ".weight"), width * hidden,
                  layer.tensor_values("experts." + std::to_string(e) + "." + part + ".weight"));
  const tensor<double> x = tensor<double>::random(rows, width, 3);
  const tensor<double> want = reference_ffn(values_of(layer, "experts.0.w1"), values_of(layer, "experts.0.w3"),
                                            values_of(layer, "experts.0.w2"), x);
  const pass_memory memory(4);
  CHECK(mismatch(smear_output(mixture, layer, x, memory.pass), want, [](index_t, index_t) { return 1e-13; }) == "");
}

TEMPLATE_TEST_CASE("layers: smear of one expert equals the dense layer bit for bit", "[layers]", causal_smear,
                   whole_smear) {
  const TestType mixture = small_mixture<TestType>();
  owned_layer<smear_parameters> layer(mixture.specs(shape_with_experts(1)));
  owned_layer<swiglu_ffn_parameters> dense(swiglu_ffn_specs(width, hidden));
  const index_t size = width * hidden;
  std::copy_n(layer.tensor_values("experts.0.w1.weight"), size, dense.tensor_values("gate_proj.weight"));
  std::copy_n(layer.tensor_values("experts.0.w3.weight"), size, dense.tensor_values("up_proj.weight"));
  std::copy_n(layer.tensor_values("experts.0.w2.weight"), size, dense.tensor_values("down_proj.weight"));
  const tensor<double> x = tensor<double>::random(rows, width, 3), d_out = tensor<double>::random(rows, width, 4);
  tensor<double> out(rows, width), dense_out(rows, width), d_x(rows, width), dense_d_x(rows, width);
  context<cpu> ctx({.threads = 1});
  const pass_memory memory(1);
  const auto saved = mixture.template forward<exact>(ctx, layer.weights(), memory.pass, x.matrix(), out.matrix());
  mixture.template backward<exact>(ctx, layer.weights(), layer.gradient_views(), memory.pass, saved, x.matrix(),
                                   d_x.matrix(), d_out.matrix(), 1.0);
  const auto dense_saved = swiglu_ffn_forward<exact>(ctx, dense.weights(), x.matrix(), dense_out.matrix());
  swiglu_ffn_backward<exact>(ctx, dense.weights(), dense.gradient_views(), dense_saved, x.matrix(), dense_d_x.matrix(),
                             d_out.matrix());
  CHECK(out.values == dense_out.values);
  CHECK(d_x.values == dense_d_x.values);
  // Sums over 14 tokens, here by merged expert.
  for (const auto& [part, name] :
       {std::pair{"w1", "gate_proj.weight"}, {"w3", "up_proj.weight"}, {"w2", "down_proj.weight"}})
    for (index_t i = 0; i < size; ++i)
      REQUIRE(std::abs(dense.tensor_gradients(name)[i] -
                       layer.tensor_gradients(std::string("experts.0.") + part + ".weight")[i]) < 1e-13);
  for (index_t i = 0; i < width; ++i) REQUIRE(layer.tensor_gradients("gate.weight")[i] == 0);
}

TEST_CASE("layers: smear by earlier segments is causal, by the sequence it is not", "[layers]") {
  STATIC_REQUIRE(causal_smear::causal());
  STATIC_REQUIRE_FALSE(whole_smear::causal());
  owned_layer<smear_parameters> layer(causal_smear{}.specs(shape_with_experts(3)));
  const tensor<double> x = tensor<double>::random(rows, width, 3);
  const pass_memory memory(3);
  const causal_smear causal = small_mixture<causal_smear>();
  const tensor<double> before = smear_output(causal, layer, x, memory.pass);
  const tensor<double> whole_before = smear_output(small_mixture<whole_smear>(), layer, x, memory.pass);
  const auto same_row = [](const tensor<double>& a, const tensor<double>& b, index_t t) {
    return std::equal(a.values.begin() + t * width, a.values.begin() + (t + 1) * width, b.values.begin() + t * width);
  };
  for (index_t changed = 0; changed < positions; ++changed) {
    CAPTURE(changed);
    tensor<double> other = x;
    for (index_t t = changed; t < positions; ++t)
      for (index_t i = 0; i < width; ++i) other(t, i) += 1 + static_cast<double>(i);
    const tensor<double> after = smear_output(causal, layer, other, memory.pass);
    for (index_t t = 0; t < rows; ++t) CHECK(same_row(before, after, t) == (t < changed || t >= positions));
    const tensor<double> whole_after = smear_output(small_mixture<whole_smear>(), layer, other, memory.pass);
    for (index_t t = 0; t < rows; ++t) CHECK(same_row(whole_before, whole_after, t) == (t >= positions));
  }
  // A later segment sees an earlier token through the mean alone.
  tensor<double> other = x;
  other(0, 0) += 1;
  const tensor<double> after = smear_output(causal, layer, other, memory.pass);
  CHECK_FALSE(same_row(before, after, 0));
  CHECK(same_row(before, after, 2));
  CHECK_FALSE(same_row(before, after, 3));
  CHECK_FALSE(same_row(before, after, 6));
}

TEST_CASE("layers: smear gives a prefix what it gives it in the whole sequence", "[layers]") {
  const causal_smear mixture = small_mixture<causal_smear>();
  owned_layer<smear_parameters> layer(mixture.specs(shape_with_experts(3)));
  const tensor<double> x = tensor<double>::random(rows, width, 3);
  const pass_memory memory(3);
  const tensor<double> whole = smear_output(mixture, layer, x, memory.pass);
  for (index_t length = 1; length <= positions; ++length) {
    CAPTURE(length);
    tensor<double> prefix(length, width);
    std::copy_n(x.values.begin(), prefix.values.size(), prefix.values.begin());
    pass_type pass;
    pass.experts = 3;
    pass.positions = length;
    const tensor<double> got = smear_output(mixture, layer, prefix, pass);
    CHECK(std::equal(got.values.begin(), got.values.end(), whole.values.begin()));
  }
}

TEST_CASE("layers: smear drops experts by sequence, the same in one pass and in two", "[layers]") {
  causal_smear mixture = small_mixture<causal_smear>();
  mixture.dropout = 0.5;
  const index_t experts = 8;
  owned_layer<smear_parameters> layer(mixture.specs(shape_with_experts(experts)));
  const tensor<double> x = tensor<double>::random(rows, width, 3);
  pass_memory memory(experts);
  context<cpu> ctx({.threads = 1});
  workspace_scope scope(ctx);
  tensor<double> out(rows, width);
  const auto shares = [&](const pass_type& pass) {
    const auto saved = mixture.forward<exact>(ctx, layer.weights(), pass, x.matrix(), out.matrix());
    return std::vector<double>(saved.p.data, saved.p.data + saved.p.size());
  };
  const std::vector<double> p = shares(memory.pass);
  REQUIRE(p.size() == 6 * 8);
  std::vector<int> dropped(2);
  for (std::size_t g = 0; g < 6; ++g) {
    double sum = 0;
    for (std::size_t e = 0; e < 8; ++e) {
      sum += p[g * 8 + e];
      CHECK((p[g * 8 + e] == 0) == (p[g / 3 * 24 + e] == 0));  // all segments of a sequence drop the same
      if (g % 3 == 0) dropped[g / 3] += p[g * 8 + e] == 0 ? 1 : 0;
    }
    CHECK(std::abs(sum - 1) < 1e-15 * 8);
  }
  CHECK(dropped[0] + dropped[1] > 2);
  CHECK(dropped[0] + dropped[1] < 14);
  CHECK(p != shares([&] {
          auto pass = memory.pass;
          return pass.at.step = 3, pass;
        }()));
  CHECK(p != shares([&] {
          auto pass = memory.pass;
          return pass.layer = 2, pass;
        }()));
  CHECK(p == shares(memory.pass));

  tensor<double> second(positions, width);
  pass_type later = memory.pass;
  later.at.first_token = positions;
  later.ids = memory.pass.ids.rows(positions, rows);
  const auto half =
      mixture.forward<exact>(ctx, layer.weights(), later, x.matrix().rows(positions, rows), second.matrix());
  CHECK(std::equal(half.p.data, half.p.data + 24, p.begin() + 24));
  mixture.forward<exact>(ctx, layer.weights(), memory.pass, x.matrix(), out.matrix());
  CHECK(std::equal(second.values.begin(), second.values.end(), out.values.begin() + positions * width));

  pass_type evaluation = memory.pass;
  evaluation.at.training = false;
  for (const double share : shares(evaluation)) CHECK(share > 0);
  mixture.dropout = 1 - 0x1p-40;  // drops all: then none
  for (const double share : shares(memory.pass)) CHECK(share > 0);
}

TEST_CASE("layers: smear gives the same whatever it merges at once", "[layers]") {
  owned_layer<smear_parameters> one(causal_smear{}.specs(shape_with_experts(3))),
      all(causal_smear{}.specs(shape_with_experts(3)));
  const tensor<double> x = tensor<double>::random(rows, width, 3), d_out = tensor<double>::random(rows, width, 4);
  const pass_memory memory(3);
  const auto run = [&](owned_layer<smear_parameters>& layer, index_t rows_at_once, auto& ctx, auto kind) {
    using compute_type = decltype(kind);
    causal_smear mixture = small_mixture<causal_smear>();
    mixture.rows_at_once = rows_at_once;
    tensor<double> out(rows, width), d_x(rows, width);
    const auto saved = mixture.forward<compute_type>(ctx, layer.weights(), memory.pass, x.matrix(), out.matrix());
    mixture.backward<compute_type>(ctx, layer.weights(), layer.gradient_views(), memory.pass, saved, x.matrix(),
                                   d_x.matrix(), d_out.matrix(), 1.0);
    return std::pair(out, d_x);
  };
  context<cpu> ctx({.threads = 1});
  const auto a = run(one, 1, ctx, exact{}), b = run(all, 1000, ctx, exact{});
  CHECK(a.first.values == b.first.values);
  CHECK(a.second.values == b.second.values);
  const auto close = [](const std::vector<double>& left, const std::vector<double>& right) {
    double most = 0;
    for (std::size_t i = 0; i < left.size(); ++i) most = std::max(most, std::abs(left[i] - right[i]));
    return most < 1e-12;  // sums of 14 terms of about 10, in another order
  };
  CHECK(close(one.gradients, all.gradients));

  owned_layer<smear_parameters> other(causal_smear{}.specs(shape_with_experts(3)));
  shuffled_context shuffled(5);
  const auto c = run(other, 6, shuffled, shuffled_compute{});
  CHECK(close(a.first.values, c.first.values));
  CHECK(close(a.second.values, c.second.values));
  CHECK(close(one.gradients, other.gradients));
}

TEST_CASE("layers: smear computes nothing for frozen parameters", "[layers]") {
  const causal_smear mixture = small_mixture<causal_smear>();
  owned_layer<smear_parameters> trained(mixture.specs(shape_with_experts(3))),
      frozen(mixture.specs(shape_with_experts(3)));
  const tensor<double> x = tensor<double>::random(rows, width, 3), d_out = tensor<double>::random(rows, width, 4);
  const pass_memory memory(3);
  context<cpu> ctx({.threads = 1});
  const auto backward = [&](owned_layer<smear_parameters>& layer, const smear_parameters<exact::gradient>& gradients) {
    workspace_scope scope(ctx);
    tensor<double> out(rows, width), d_x(rows, width);
    const auto saved = mixture.forward<exact>(ctx, layer.weights(), memory.pass, x.matrix(), out.matrix());
    mixture.backward<exact>(ctx, layer.weights(), gradients, memory.pass, saved, x.matrix(), d_x.matrix(),
                            d_out.matrix(), 1.0);
    return d_x;
  };
  const tensor<double> all = backward(trained, trained.gradient_views());
  CHECK(backward(frozen, {}).values == all.values);
  smear_parameters<exact::gradient> gate_only;
  gate_only.gate = frozen.gradient_views().gate;
  CHECK(backward(frozen, gate_only).values == all.values);
  const tensor_entry& gate = frozen.find("gate.weight");
  for (std::size_t i = 0; i < frozen.gradients.size(); ++i) {
    const auto at = static_cast<index_t>(i);
    const bool own = at >= gate.offset && at < gate.offset + gate.size();
    REQUIRE(frozen.gradients[i] == (own ? trained.gradients[i] : 0.0));
  }
}

TEST_CASE("layers: smear says what it is and refuses what it cannot be", "[layers]") {
  causal_smear mixture;
  const transformer_shape shape = shape_with_experts(3);
  CHECK_NOTHROW(mixture.check(shape));
  CHECK(causal_smear::name_of(mixture) ==
        "smear mean=earlier_segments smear.segment=64 smear.dropout=0 smear.normalise_gate=1 "
        "smear.stddev=0.01 smear.rows_at_once=2048");
  CHECK(whole_smear::name_of({}) != causal_smear::name_of({}));
  mixture.dropout = 1;
  CHECK_THROWS_WITH(mixture.check(shape), "smear: expected dropout in [0, 1), got 1");
  mixture = {};
  mixture.segment = 0;
  CHECK_THROWS_WITH(mixture.check(shape), "smear: expected segment and rows_at_once of at least 1, got 0 and 2048");
  CHECK_THROWS_WITH(causal_smear{}.check(shape_with_experts(0)), "smear: expected at least 1 expert, got experts=0");
  // One expert of 3 D F, the gate and three vectors of D and one of E.
  const double active = causal_smear{}.active_parameters(causal_smear{}.specs(shape), shape, 0);
  CHECK(active == 3 * width * hidden + 3 * width + 3 * width + 3);
  CHECK(active_parameter_count(shape, causal_smear{}) ==
        parameter_count(shape, causal_smear{}) - 2 * 3 * width * hidden);
  STATIC_REQUIRE(causal_smear{}.experts(transformer_shape{.experts = 5}) == 5);
}

TEST_CASE("layers: smear behind any_mixture gives the same bits", "[layers]") {
  context<cpu> ctx({.threads = 1});
  transformer<causal_smear, exact> direct(ctx, small_shape(3), small_mixture<causal_smear>());
  any_mixture<exact> any(small_mixture<causal_smear>());
  CHECK(any.options().size() == 5);
  transformer<any_mixture<exact>, exact> held(ctx, small_shape(3), any);
  const token_batch batch(2, 6, 11);
  const auto run = [&](auto& model) {
    randomize(model, 1);
    model.parameters().set_trainable({});
    model.forward_backward(batch.input(), batch.target(), {.token_scale = 0.1});
    const auto gradients = model.parameters().gradients();
    return std::pair(model.metrics().load, std::vector<double>(gradients.data, gradients.data + gradients.size()));
  };
  CHECK(run(direct) == run(held));
}

TEST_CASE("layers: smear in fp32 and bf16 stays near fp64", "[layers]") {
  const auto outputs = [&](auto kind) {
    using compute_type = decltype(kind);
    context<cpu> ctx({.threads = 1});
    transformer<causal_smear, compute_type> model(ctx, small_shape(3), small_mixture<causal_smear>());
    randomize(model, 1);
    const token_batch batch(2, 7, 11);
    tensor<typename compute_type::master> logits(14, 11);
    model.logits(logits.matrix(), batch.input());
    return logits.wide();
  };
  const tensor<double> want = outputs(exact{});
  // Two blocks of sums of 12 terms at most, residuals of about 1: 2^-24 times some hundred, 2^-8 times some tens.
  CHECK(mismatch(outputs(compute<fp32, cpu>{}), want, [](index_t, index_t) { return 200 * 0x1p-24; }) == "");
  CHECK(mismatch(outputs(compute<bf16, cpu>{}), want, [](index_t, index_t) { return 50 * 0x1p-8; }) == "");
  CHECK(mismatch(outputs(compute<fp32, cpu>{}), want, [](index_t, index_t) { return 1e-12; }) != "");
}

TEMPLATE_TEST_CASE("layers: smear trains, with the same bits for any number of threads", "[layers]", smear_model<fp64>,
                   smear_model<fp32>, smear_model<bf16>) {
  const training_options options{
      .steps = 20, .sequences = 4, .positions = 32, .micro_sequences = 4, .learning_rate = 0.01, .warmup_steps = 2};
  process<TestType> one(1, options), two(2, options);
  one.model.mixture().segment = two.model.mixture().segment = 8;
  one.model.mixture().dropout = two.model.mixture().dropout = 0.1;
  const std::vector<double> first = one.losses(3);
  if constexpr (std::is_same_v<typename TestType::M, double>) {
    CHECK(first == two.losses(3));
    CHECK(one.state() == two.state());
  }
  CHECK(one.losses(20).back() < 0.8 * first.front());
}

}  // namespace smear_tests
