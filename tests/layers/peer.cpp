// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Retrieval of one-neuron experts by product keys: selection against a search through all n^2 experts, gradients by
// central differences, the equations written out, and training. One file: all cases share the reference.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <graft/layers/any_mixture.hpp>
#include <graft/layers/peer.hpp>
#include <graft/models/counts.hpp>

#include "layer_check.hpp"
#include "shuffled_context.hpp"
#include "train/training_check.hpp"

namespace peer_tests {

using namespace graft;
using namespace graft::test;

namespace {

using pass_type = routing_pass<double, host_space>;
constexpr index_t width = 6, rows = 8, key_width = 4;

transformer_shape shape_with_experts(index_t experts) {
  return {.vocabulary = 11,
          .width = width,
          .blocks = 1,
          .heads = 2,
          .kv_heads = 1,
          .head_dim = 4,
          .hidden = 5,
          .positions = 16,
          .experts = experts};
}

template <class Mixture>
Mixture small_mixture() {
  Mixture mixture;
  mixture.key_width = key_width;
  return mixture;
}

struct pass_memory {
  std::vector<std::int32_t> ids = std::vector<std::int32_t>(static_cast<std::size_t>(rows), 1);
  std::vector<double> load;
  pass_type pass;

  explicit pass_memory(index_t experts, bool padding = false)
      : load(static_cast<std::size_t>(routing_load{experts}.size())) {
    if (padding) ids[0] = ids[5] = -1;
    pass.experts = experts;
    pass.positions = rows;
    pass.ids = vector_view<const std::int32_t>(ids.data(), rows);
    pass.load = vector_view<double>(load.data(), static_cast<index_t>(load.size()));
  }
};

template <class Mixture>
std::string peer_mismatch(context<cpu>& ctx, const Mixture& mixture, owned_layer<peer_parameters>& layer,
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

double reference_activation(peer_activation activation, double z) {
  if (activation == peer_activation::gelu) return z * std::erfc(-z / std::sqrt(2.0)) / 2;
  if (activation == peer_activation::silu) return z / (1 + std::exp(-z));
  return std::max(z, 0.0);
}

tensor<double> values_of(owned_layer<peer_parameters>& layer, const std::string& name) {
  const tensor_entry& entry = layer.find(name + ".weight");
  tensor<double> result(entry.columns > 0 ? entry.rows : 1, entry.columns > 0 ? entry.columns : entry.rows);
  std::copy_n(layer.values.data() + entry.offset, result.values.size(), result.values.begin());
  return result;
}

struct choice {
  double score;
  index_t expert;
};

// All experts by score, largest first, ties to the lower index.
std::vector<choice> ranked(const std::vector<double>& scores) {
  std::vector<choice> result;
  for (std::size_t e = 0; e < scores.size(); ++e) result.push_back({scores[e], static_cast<index_t>(e)});
  std::stable_sort(result.begin(), result.end(), [](const choice& a, const choice& b) { return a.score > b.score; });
  return result;
}

struct reference_result {
  tensor<double> out{rows, width};
  std::vector<std::int32_t> selected;
};

// From the equations, with a search through all experts.
reference_result reference_peer(owned_layer<peer_parameters>& layer, const tensor<double>& x,
                                const std::vector<std::int32_t>& ids, index_t heads, index_t top_k, index_t side,
                                peer_activation activation) {
  const tensor<double> queries = reference_linear(x, values_of(layer, "query")), norm = values_of(layer, "query_norm"),
                       row_keys = values_of(layer, "row_keys"), column_keys = values_of(layer, "column_keys"),
                       u = values_of(layer, "u"), v = values_of(layer, "v");
  reference_result result;
  for (index_t t = 0; t < rows; ++t) {
    for (index_t h = 0; h < heads; ++h) {
      if (ids[static_cast<std::size_t>(t)] < 0) {
        result.selected.insert(result.selected.end(), static_cast<std::size_t>(top_k), -1);
        continue;
      }
      tensor<double> raw(1, key_width);
      for (index_t i = 0; i < key_width; ++i) raw(0, i) = queries.at(t, h * key_width + i);
      const tensor<double> q = reference_rms_norm(raw, norm, 1e-6);
      std::vector<double> scores;
      for (index_t e = 0; e < side * side; ++e) {
        double left = 0, right = 0;
        for (index_t i = 0; i < key_width / 2; ++i) {
          left += q.at(0, i) * row_keys.at(h * side + e / side, i);
          right += q.at(0, key_width / 2 + i) * column_keys.at(h * side + e % side, i);
        }
        scores.push_back(left + right);
      }
      const std::vector<choice> order = ranked(scores);
      double sum = 0;
      for (index_t k = 0; k < top_k; ++k) sum += std::exp(order[static_cast<std::size_t>(k)].score);
      for (index_t k = 0; k < top_k; ++k) {
        const auto [score, expert] = order[static_cast<std::size_t>(k)];
        result.selected.push_back(static_cast<std::int32_t>(expert));
        double z = 0;
        for (index_t i = 0; i < width; ++i) z += u.at(expert, i) * x.at(t, i);
        for (index_t i = 0; i < width; ++i)
          result.out(t, i) += std::exp(score) / sum * reference_activation(activation, z) * v.at(expert, i);
      }
    }
  }
  return result;
}

struct shuffled_compute : exact {
  using context_type = shuffled_context;
};

template <int Heads, int TopK, peer_activation A = peer_activation::gelu>
struct peer_case {
  using mixture = peer_mixture<Heads, TopK, A>;
  static constexpr int heads = Heads, top_k = TopK;
  static constexpr peer_activation activation = A;
};

template <class P>
using peer_model = transformer<peer_mixture<2, 4>, compute<P, cpu>>;

// Scores of small whole numbers tie often, and their sums are exact.
template <int K>
std::string selection_mismatch(index_t side, std::uint64_t seed, index_t levels, bool shuffled) {
  const index_t tokens = 20, heads = 2;
  const random_source draw{seed, random_stream::data};
  tensor<double> row_scores(tokens, heads * side), column_scores(tokens, heads * side), weights(tokens, heads * K);
  for (std::size_t i = 0; i < row_scores.values.size(); ++i) {
    row_scores.values[i] = static_cast<double>(draw.below(static_cast<std::uint64_t>(levels), 0, i));
    column_scores.values[i] = static_cast<double>(draw.below(static_cast<std::uint64_t>(levels), 1, i));
  }
  std::vector<std::int32_t> selected(static_cast<std::size_t>(tokens * heads * K), -7);
  const detail::peer_select_row<K, double, host_space> algorithm{
      matrix_view<std::int32_t>(selected.data(), tokens, heads * K),
      weights.matrix(),
      row_scores.matrix(),
      column_scores.matrix(),
      {},
      0,
      heads,
      side};
  if (shuffled) {
    launch_shuffled(tokens * heads, static_cast<std::uint32_t>(seed), algorithm);
  } else {
    context<cpu> ctx({.threads = 1});
    launch_rows(ctx, tokens * heads, side, algorithm);
  }
  for (index_t t = 0; t < tokens; ++t)
    for (index_t h = 0; h < heads; ++h) {
      std::vector<double> scores;
      for (index_t e = 0; e < side * side; ++e)
        scores.push_back(row_scores.at(t, h * side + e / side) + column_scores.at(t, h * side + e % side));
      const std::vector<choice> order = ranked(scores);
      double sum = 0;
      for (index_t k = 0; k < K; ++k) sum += std::exp(order[static_cast<std::size_t>(k)].score - order[0].score);
      for (index_t k = 0; k < K; ++k) {
        const choice want = order[static_cast<std::size_t>(k)];
        const auto got = selected[static_cast<std::size_t>((t * heads + h) * K + k)];
        if (got != want.expert)
          return "token " + std::to_string(t) + ", head " + std::to_string(h) + ", slot " + std::to_string(k) +
                 ": got expert " + std::to_string(got) + ", want " + std::to_string(want.expert);
        // A softmax of K terms.
        if (!(std::abs(weights.at(t, h * K + k) - std::exp(want.score - order[0].score) / sum) < 1e-14 * K))
          return "a weight is wrong";
      }
    }
  return "";
}

}  // namespace

TEST_CASE("layers: peer selects as a search through all experts does, ties to the lower index", "[layers]") {
  const bool shuffled = GENERATE(false, true);
  const index_t levels = GENERATE(1, 2, 4, 1000);
  CAPTURE(shuffled, levels);
  const auto seed = static_cast<std::uint64_t>(levels);
  CHECK(selection_mismatch<1>(1, seed, levels, shuffled) == "");
  CHECK(selection_mismatch<1>(9, seed, levels, shuffled) == "");
  CHECK(selection_mismatch<4>(2, seed, levels, shuffled) == "");  // all experts
  CHECK(selection_mismatch<5>(3, seed, levels, shuffled) == "");  // more than there are rows
  CHECK(selection_mismatch<8>(8, seed, levels, shuffled) == "");
  CHECK(selection_mismatch<16>(100, seed, levels, shuffled) == "");
}

TEST_CASE("layers: peer selects no expert where no score is a number", "[layers]") {
  tensor<double> scores(1, 3, std::numeric_limits<double>::quiet_NaN()), weights(1, 2);
  std::vector<std::int32_t> selected(2);
  const detail::peer_select_row<2, double, host_space> algorithm{matrix_view<std::int32_t>(selected.data(), 1, 2),
                                                                 weights.matrix(),
                                                                 scores.matrix(),
                                                                 scores.matrix(),
                                                                 {},
                                                                 0,
                                                                 1,
                                                                 3};
  context<cpu> ctx({.threads = 1});
  launch_rows(ctx, 1, 3, algorithm);
  CHECK(selected == std::vector<std::int32_t>{-1, -1});
  CHECK(weights.values == std::vector<double>{0, 0});
}

using gelu_one = peer_case<1, 1>;
using gelu_some = peer_case<2, 3>;
using silu_some = peer_case<2, 3, peer_activation::silu>;
using relu_many = peer_case<3, 5, peer_activation::relu>;

TEMPLATE_TEST_CASE("layers: peer gradients by central differences", "[layers]", gelu_one, gelu_some, silu_some,
                   relu_many) {
  const index_t side = GENERATE(1, 2, 3, 4);
  const bool padding = GENERATE(false, true);
  if (TestType::top_k > side * side) return;
  CAPTURE(TestType::heads, TestType::top_k, side, padding);
  context<cpu> ctx({.threads = 1});
  const auto mixture = small_mixture<typename TestType::mixture>();
  owned_layer<peer_parameters> layer(mixture.specs(shape_with_experts(side * side)));
  tensor<double> x = tensor<double>::random(rows, width, 2);
  const pass_memory memory(side * side, padding);
  CHECK(peer_mismatch(ctx, mixture, layer, x, memory.pass) == "");
}

TEMPLATE_TEST_CASE("layers: peer equals its equations", "[layers]", gelu_one, gelu_some, silu_some, relu_many) {
  const index_t side = GENERATE(1, 2, 3, 5);
  const bool padding = GENERATE(false, true);
  if (TestType::top_k > side * side) return;
  CAPTURE(TestType::heads, TestType::top_k, side, padding);
  context<cpu> ctx({.threads = 1});
  const auto mixture = small_mixture<typename TestType::mixture>();
  owned_layer<peer_parameters> layer(mixture.specs(shape_with_experts(side * side)));
  const tensor<double> x = tensor<double>::random(rows, width, 2);
  pass_memory memory(side * side, padding);
  tensor<double> out(rows, width, 1e300);
  const auto saved = mixture.template forward<exact>(ctx, layer.weights(), memory.pass, x.matrix(), out.matrix());
  const reference_result want =
      reference_peer(layer, x, memory.ids, TestType::heads, TestType::top_k, side, TestType::activation);
  CHECK(std::vector<std::int32_t>(saved.selected.data, saved.selected.data + saved.selected.size()) == want.selected);
  // Sums of 6 and of up to 15 terms of about 1.
  CHECK(mismatch(out, want.out, [](index_t, index_t) { return 1e-13; }) == "");

  std::vector<double> counts(static_cast<std::size_t>(side * side));
  for (const std::int32_t expert : want.selected)
    if (expert >= 0) counts[static_cast<std::size_t>(expert)] += 1;
  CHECK(std::equal(counts.begin(), counts.end(), memory.load.begin()));
  const routing_load at{side * side};
  CHECK(memory.load[static_cast<std::size_t>(at.tokens())] == (padding ? 6 : 8));
  double entropy = 0;
  for (index_t i = 0; i < saved.weights.size(); ++i)
    if (saved.weights.data[i] > 0) entropy -= saved.weights.data[i] * std::log(saved.weights.data[i]);
  CHECK(std::abs(memory.load[static_cast<std::size_t>(at.entropy())] - entropy / TestType::heads) < 1e-13);
}

TEST_CASE("layers: peer of one expert is its neuron", "[layers]") {
  context<cpu> ctx({.threads = 1});
  const auto mixture = small_mixture<peer_mixture<1, 1>>();
  owned_layer<peer_parameters> layer(mixture.specs(shape_with_experts(1)));
  const tensor<double> x = tensor<double>::random(rows, width, 2), d_out = tensor<double>::random(rows, width, 3);
  const pass_memory memory(1);
  tensor<double> out(rows, width), d_x(rows, width);
  const auto saved = mixture.forward<exact>(ctx, layer.weights(), memory.pass, x.matrix(), out.matrix());
  const tensor<double> u = values_of(layer, "u"), v = values_of(layer, "v");
  for (index_t t = 0; t < rows; ++t) {
    double z = 0;
    for (index_t i = 0; i < width; ++i) z += u.at(0, i) * x.at(t, i);
    for (index_t i = 0; i < width; ++i)
      CHECK(std::abs(out(t, i) - reference_activation(peer_activation::gelu, z) * v.at(0, i)) < 1e-14);
    CHECK(saved.weights(t, 0) == 1);
  }
  mixture.backward<exact>(ctx, layer.weights(), layer.gradient_views(), memory.pass, saved, x.matrix(), d_x.matrix(),
                          d_out.matrix(), 1.0);
  // The weight is 1 whatever the query.
  for (const char* name : {"query", "query_norm", "row_keys", "column_keys"}) {
    const tensor_entry& entry = layer.find(std::string(name) + ".weight");
    for (index_t i = 0; i < entry.size(); ++i)
      REQUIRE(layer.gradients[static_cast<std::size_t>(entry.offset + i)] == 0);
  }
  CHECK(layer.tensor_gradients("u.weight")[0] != 0);
}

TEST_CASE("layers: peer of equal experts is as many times one neuron as there are heads", "[layers]") {
  context<cpu> ctx({.threads = 1});
  const auto mixture = small_mixture<peer_mixture<3, 4>>();
  owned_layer<peer_parameters> layer(mixture.specs(shape_with_experts(9)));
  for (const char* name : {"u.weight", "v.weight"})
    for (index_t e = 1; e < 9; ++e)
      std::copy_n(layer.tensor_values(name), width, layer.tensor_values(name) + e * width);
  const tensor<double> x = tensor<double>::random(rows, width, 2);
  const pass_memory memory(9);
  tensor<double> out(rows, width);
  mixture.forward<exact>(ctx, layer.weights(), memory.pass, x.matrix(), out.matrix());
  const tensor<double> u = values_of(layer, "u"), v = values_of(layer, "v");
  for (index_t t = 0; t < rows; ++t) {
    double z = 0;
    for (index_t i = 0; i < width; ++i) z += u.at(0, i) * x.at(t, i);
    for (index_t i = 0; i < width; ++i)
      CHECK(std::abs(out(t, i) - 3 * reference_activation(peer_activation::gelu, z) * v.at(0, i)) < 1e-13);
  }
}

TEST_CASE("layers: peer gives a token the same, alone or among others", "[layers]") {
  context<cpu> ctx({.threads = 1});
  const auto mixture = small_mixture<peer_mixture<2, 3>>();
  owned_layer<peer_parameters> layer(mixture.specs(shape_with_experts(16)));
  const tensor<double> x = tensor<double>::random(rows, width, 2);
  const pass_memory memory(16);
  tensor<double> out(rows, width);
  mixture.forward<exact>(ctx, layer.weights(), memory.pass, x.matrix(), out.matrix());
  for (index_t t = 0; t < rows; ++t) {
    tensor<double> alone(1, width);
    pass_type pass;
    pass.experts = 16;
    mixture.forward<exact>(ctx, layer.weights(), pass, x.matrix().rows(t, t + 1), alone.matrix());
    CHECK(std::equal(alone.values.begin(), alone.values.end(), out.values.begin() + t * width));
  }
}

TEST_CASE("layers: peer gives experts that no token chose, and padding, nothing", "[layers]") {
  context<cpu> ctx({.threads = 1});
  const auto mixture = small_mixture<peer_mixture<1, 2>>();
  owned_layer<peer_parameters> layer(mixture.specs(shape_with_experts(25)));
  const tensor<double> x = tensor<double>::random(rows, width, 2), d_out = tensor<double>::random(rows, width, 3);
  const pass_memory memory(25, true);
  tensor<double> out(rows, width, 1e300), d_x(rows, width, 1e300);
  const auto saved = mixture.forward<exact>(ctx, layer.weights(), memory.pass, x.matrix(), out.matrix());
  mixture.backward<exact>(ctx, layer.weights(), layer.gradient_views(), memory.pass, saved, x.matrix(), d_x.matrix(),
                          d_out.matrix(), 1.0);
  index_t idle = 0;
  for (index_t e = 0; e < 25; ++e) {
    const bool used = memory.load[static_cast<std::size_t>(e)] > 0;
    idle += used ? 0 : 1;
    for (const char* name : {"u.weight", "v.weight"})
      for (index_t i = 0; i < width; ++i) REQUIRE((layer.tensor_gradients(name)[e * width + i] != 0) == used);
  }
  CHECK(idle >= 25 - 12);
  CHECK(idle < 25);
  for (const index_t t : {0, 5})
    for (index_t i = 0; i < width; ++i) {
      CHECK(out(t, i) == 0);
      CHECK(d_x(t, i) == 0);
    }
}

TEST_CASE("layers: peer does not depend on the order of rows or of launches, nor on what is frozen", "[layers]") {
  const auto mixture = small_mixture<peer_mixture<2, 3>>();
  const tensor<double> x = tensor<double>::random(rows, width, 2), d_out = tensor<double>::random(rows, width, 3);
  const pass_memory memory(9);
  const auto run = [&](auto& ctx, auto kind, owned_layer<peer_parameters>& layer,
                       const peer_parameters<exact::gradient>& gradients) {
    using compute_type = decltype(kind);
    tensor<double> out(rows, width), d_x(rows, width);
    const auto saved = mixture.forward<compute_type>(ctx, layer.weights(), memory.pass, x.matrix(), out.matrix());
    mixture.backward<compute_type>(ctx, layer.weights(), gradients, memory.pass, saved, x.matrix(), d_x.matrix(),
                                   d_out.matrix(), 1.0);
    return std::pair(out, d_x);
  };
  owned_layer<peer_parameters> plain(mixture.specs(shape_with_experts(9))), other(mixture.specs(shape_with_experts(9)));
  context<cpu> ctx({.threads = 1});
  shuffled_context shuffled(3);
  const auto a = run(ctx, exact{}, plain, plain.gradient_views());
  const auto b = run(shuffled, shuffled_compute{}, other, other.gradient_views());
  const auto close = [](const std::vector<double>& left, const std::vector<double>& right) {
    double most = 0;
    for (std::size_t i = 0; i < left.size(); ++i) most = std::max(most, std::abs(left[i] - right[i]));
    return most < 1e-13;  // sums of at most 8 terms of about 1, in another order
  };
  CHECK(close(a.first.values, b.first.values));
  CHECK(close(a.second.values, b.second.values));
  CHECK(close(plain.gradients, other.gradients));

  owned_layer<peer_parameters> frozen(mixture.specs(shape_with_experts(9)));
  peer_parameters<exact::gradient> only_u;
  only_u.u = frozen.gradient_views().u;
  CHECK(run(ctx, exact{}, frozen, only_u).second.values == a.second.values);
  const tensor_entry& u = frozen.find("u.weight");
  for (std::size_t i = 0; i < frozen.gradients.size(); ++i) {
    const auto at = static_cast<index_t>(i);
    REQUIRE(frozen.gradients[i] == (at >= u.offset && at < u.offset + u.size() ? plain.gradients[i] : 0.0));
  }
}

TEST_CASE("layers: peer says what it is and refuses what it cannot be", "[layers]") {
  using mixture = peer_mixture<8, 16>;
  STATIC_REQUIRE(mixture::causal());
  STATIC_REQUIRE(mixture::side_of(1) == 1);
  STATIC_REQUIRE(mixture::side_of(99) == 9);
  STATIC_REQUIRE(mixture::side_of(1 << 20) == 1 << 10);
  CHECK(mixture::name_of({}) ==
        "peer heads=8 top_k=16 activation=gelu peer.key_width=128 peer.key_stddev=0.125 "
        "peer.stddev=0.02");
  CHECK(mixture::name_of({}) != peer_mixture<8, 16, peer_activation::relu>::name_of({}));
  CHECK_NOTHROW(mixture{}.check(shape_with_experts(16)));
  CHECK_THROWS_WITH(mixture{}.check(shape_with_experts(18)),
                    "peer: expected a square number of experts, got experts=18 between 4^2=16 and 5^2=25");
  CHECK_THROWS_WITH(mixture{}.check(shape_with_experts(9)), "peer: expected top_k <= experts, got top_k=16, experts=9");
  CHECK_THROWS_WITH((mixture{.key_width = 7}.check(shape_with_experts(16))),
                    "peer: expected an even key_width of at least 2, got 7");
  CHECK_THROWS_AS(mixture{}.check(shape_with_experts(0)), error);

  // Query, its norm, two tables of 8 x 32 sub-keys of 64, and 128 of 1024 neurons of 2 D.
  const transformer_shape shape = shape_with_experts(1024);
  const double active = mixture{}.active_parameters(mixture{}.specs(shape), shape, 0);
  CHECK(active == 8 * 128 * width + 128 + 2 * 8 * 32 * 64 + 128 * 2 * width);
  CHECK(parameter_count(shape, mixture{}) - active_parameter_count(shape, mixture{}) == (1024 - 128) * 2 * width);
  CHECK(mixture{}.experts(shape) == 1024);
  CHECK(mixture{}.experts(shape_with_experts(1 << 20)) == 0);
}

// The number of scores that are made at once is no part of the result: more tokens than that, and few.
TEST_CASE("layers: peer of many tokens equals peer of some", "[layers]") {
  context<cpu> ctx({.threads = 1});
  const auto mixture = small_mixture<peer_mixture<1, 2>>();
  owned_layer<peer_parameters> layer(mixture.specs(shape_with_experts(9)));
  const index_t many = 1500;
  const tensor<double> x = tensor<double>::random(many, width, 2);
  tensor<double> out(many, width), some(600, width);
  pass_type pass;
  pass.experts = 9;
  mixture.forward<exact>(ctx, layer.weights(), pass, x.matrix(), out.matrix());
  mixture.forward<exact>(ctx, layer.weights(), pass, x.matrix().rows(900, many), some.matrix());
  CHECK(std::equal(some.values.begin(), some.values.end(), out.values.begin() + 900 * width));
}

TEST_CASE("layers: peer behind any_mixture gives the same bits", "[layers]") {
  context<cpu> ctx({.threads = 1});
  transformer<peer_mixture<2, 3>, exact> direct(ctx, small_shape(9), small_mixture<peer_mixture<2, 3>>());
  any_mixture<exact> any(small_mixture<peer_mixture<2, 3>>());
  CHECK(any.options().size() == 3);
  transformer<any_mixture<exact>, exact> held(ctx, small_shape(9), any);
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

TEST_CASE("layers: peer in fp32 stays near fp64", "[layers]") {
  const auto outputs = [&](auto kind) {
    using compute_type = decltype(kind);
    context<cpu> ctx({.threads = 1});
    transformer<peer_mixture<2, 3>, compute_type> model(ctx, small_shape(9));
    randomize(model, 1);
    const token_batch batch(2, 6, 11);
    tensor<typename compute_type::master> logits(12, 11);
    model.logits(logits.matrix(), batch.input());
    return logits.wide();
  };
  const tensor<double> want = outputs(exact{});
  // Two blocks of sums of at most 64 terms, residuals of about 1: 2^-24 times some hundred.
  CHECK(mismatch(outputs(compute<fp32, cpu>{}), want, [](index_t, index_t) { return 400 * 0x1p-24; }) == "");
  CHECK(mismatch(outputs(compute<fp32, cpu>{}), want, [](index_t, index_t) { return 1e-12; }) != "");
}

TEMPLATE_TEST_CASE("layers: peer trains, with the same bits for any number of threads", "[layers]", peer_model<fp64>,
                   peer_model<fp32>, peer_model<bf16>) {
  const training_options options{
      .steps = 20, .sequences = 4, .positions = 32, .learning_rate = 0.01, .warmup_steps = 2};
  transformer_shape shape = medium_shape<TestType>();
  shape.experts = 16 * 16;
  process<TestType> one(1, options, {}, 1, shape);
  const std::vector<double> first = one.losses(3);
  if constexpr (std::is_same_v<typename TestType::M, double>) {
    process<TestType> two(2, options, {}, 1, shape);
    CHECK(first == two.losses(3));
    CHECK(one.state() == two.state());
  }
  CHECK(one.losses(20).back() < 0.8 * first.front());
}

}  // namespace peer_tests
