// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The laws of the concept Balancer (policies/balancer/balancer.hpp), in one file of more than 400 lines, as one
// include. A test of a balancer of your own:
//
//   #include "catch.hpp"
//   #include "laws/balancer_laws.hpp"
//   TEST_CASE("my_balancer keeps the laws of balancers") { graft::test::balancer_laws(my_balancer{}); }
//
// Scale its coefficient so that its loss is about 1: tolerances of the gradient checks are made for that. A factor of
// the loss that is held fixed on purpose (btx_loss::detached) makes no gradient check fail: a derivative that is zero
// everywhere is not compared.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/core/philox.hpp>
#include <graft/layers/routing.hpp>
#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/options.hpp>
#include <graft/policies/router/top_k.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

namespace graft::test {

// The statistics of one set of tokens, with memory.
template <class M>
struct owned_statistics {
  std::vector<M> counts, mean_scores, mean_weights;
  M mean_squared_lse = M(2);
  M tokens = M(48);
  double choices = 0;  // 0: as many as columns
  index_t slots = 2;

  balance_statistics<M> view() const {
    const auto columns = static_cast<index_t>(counts.size());
    return {counts.data(),
            mean_scores.data(),
            mean_weights.data(),
            mean_squared_lse,
            filled(),
            tokens,
            choose(columns),
            columns,
            slots};
  }
  M choose(index_t columns) const { return choices > 0 ? static_cast<M>(choices) : static_cast<M>(columns); }
  M filled() const { return std::accumulate(counts.begin(), counts.end(), M(0)); }
  // Counts and weights in proportion to the scores given.
  static owned_statistics proportional(const std::vector<double>& scores, index_t slots) {
    owned_statistics result;
    result.slots = slots;
    for (const double score : scores) {
      result.mean_scores.push_back(static_cast<M>(score));
      result.mean_weights.push_back(static_cast<M>(score));
      result.counts.push_back(static_cast<M>(score) * static_cast<M>(slots) * result.tokens);
    }
    return result;
  }
  template <class Other>
  owned_statistics<Other> as() const {
    owned_statistics<Other> result;
    result.counts.assign(counts.begin(), counts.end());
    result.mean_scores.assign(mean_scores.begin(), mean_scores.end());
    result.mean_weights.assign(mean_weights.begin(), mean_weights.end());
    result.mean_squared_lse = static_cast<Other>(mean_squared_lse);
    result.tokens = static_cast<Other>(tokens);
    result.slots = slots;
    return result;
  }
};

// A balancer all of whose coefficients are this number.
template <Balancer B>
B with_coefficient(double coefficient) {
  B balancer{};
  for_each_option(balancer, [&](const std::string& option, auto& value) {
    if (option.ends_with("coefficient")) value = static_cast<std::remove_reference_t<decltype(value)>>(coefficient);
  });
  return balancer;
}

// f(single) summed over the balancers of a Balancer.
template <class B, class F>
double sum_over_balancers(const B& balancer, const F& f) {
  double sum = 0;
  graft::detail::for_each_balancer(balancer, [&](const auto& single) { sum += static_cast<double>(f(single)); });
  return sum;
}

// Routers with the two kinds of weights: sums of one, and shares of a softmax over all.
struct switch_like : row_router<softmax_score, select_top<2>, selected_score> {
  static constexpr const char* name = "switch_like";
};

// What one pass of a layer routes, in double precision.
struct routed_pass {
  index_t experts = 4, positions = 3, groups = 1;
  tensor<double> logits;          // (T, N)
  std::vector<std::int32_t> ids;  // (T), -1 for padding; empty: no padding
  std::vector<double> load;       // as before the pass, of routing_load; empty: not counted
  std::vector<double> bias;       // (E) or empty
  pass_position at{.seed = 3, .step = 5, .training = true};
  index_t layer = 1;

  index_t tokens() const { return logits.rows; }
  bool padding(index_t t) const { return !ids.empty() && ids[static_cast<std::size_t>(t)] < 0; }
};

// What the forward pass of the routing of a layer gives, and the backward pass where d_weights has elements.
struct routing_result {
  tensor<std::int32_t> selected;
  tensor<double> weights, d_logits;
  double loss = 0;
  std::vector<double> load;
};

template <class Context, class R, class B>
routing_result route(Context& ctx, const R& router, const B& balancer, const routed_pass& pass,
                     const tensor<double>& d_weights = {}, double scale = 1) {
  constexpr index_t slots = R::spec.experts_per_token;
  const index_t tokens = pass.tokens();
  workspace_scope scope(ctx);
  routing_result result{tensor<std::int32_t>(tokens, slots, 99), tensor<double>(tokens, slots, 99),
                        tensor<double>(tokens, pass.logits.columns, 99), 0.25, pass.load};
  std::vector<std::int32_t> ids = pass.ids;
  std::vector<double> bias = pass.bias;
  routing_pass<double, host_space> at;
  at.at = pass.at;
  at.layer = pass.layer;
  at.experts = pass.experts;
  at.positions = pass.positions;
  at.balance_groups = pass.groups;
  if (!ids.empty()) at.ids = vector_view<const std::int32_t>(ids.data(), tokens);
  if (!result.load.empty()) at.load = vector_view<double>(result.load.data(), static_cast<index_t>(result.load.size()));
  if (!bias.empty()) at.selection_bias = vector_view<double>(bias.data(), pass.experts);
  at.loss = vector_view<double>(&result.loss, 1);
  const auto statistics =
      route_forward(ctx, router, balancer, at, result.selected.matrix(), result.weights.matrix(), pass.logits.matrix());
  result.loss -= 0.25;  // added to what is there
  if (!d_weights.values.empty()) {
    tensor<double> upstream = d_weights;
    at.load = {}, at.loss = {};
    route_backward(ctx, router, balancer, at, result.d_logits.matrix(), statistics, pass.logits.matrix(),
                   result.selected.matrix(), result.weights.matrix(), upstream.matrix(), scale);
  }
  return result;
}

// The balancers' loss from its definition: sets of tokens by scope, one after the other, with the probabilities that
// the router says it has, or the softmax of the logits.
template <class R, class B>
double naive_balance_loss(const R& router, const B& balancer, const routed_pass& pass, const routing_result& routed) {
  const index_t experts = pass.experts, columns = pass.logits.columns, tokens = pass.tokens();
  const index_t slots = routed.selected.columns;
  const auto rule = graft::detail::probabilities_of(router);
  tensor<double> scores = reference_softmax(pass.logits), lse(1, tokens);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t i = 0; i < columns; ++i) lse(0, t) += std::exp(pass.logits.at(t, i));
    lse(0, t) = std::log(lse.at(0, t));
    if constexpr (!std::is_same_v<std::remove_const_t<decltype(rule)>, softmax_probabilities>) {
      serial_group group;
      const auto row = rule.prepare(group, pass.logits.matrix().row(t), experts);
      for (index_t i = 0; i < columns; ++i) scores(t, i) = row(i);
      if constexpr (requires { row.log_sum_exp(); }) lse(0, t) = row.log_sum_exp();
    }
  }
  const auto of_set = [&](const auto& single, index_t begin, index_t end, bool step, index_t& sets) {
    owned_statistics<double> set;
    set.slots = slots;
    set.choices = rule.template choices<double>(experts);
    set.tokens = 0, set.mean_squared_lse = 0;
    set.counts = set.mean_scores = set.mean_weights = std::vector<double>(static_cast<std::size_t>(columns), 0.0);
    for (index_t t = begin; t < end; ++t) {
      if (pass.padding(t)) continue;
      set.tokens += 1;
      for (index_t i = 0; i < columns; ++i) set.mean_scores[static_cast<std::size_t>(i)] += scores.at(t, i);
      set.mean_squared_lse += lse.at(0, t) * lse.at(0, t);
      for (index_t k = 0; k < slots; ++k) {
        const std::int32_t expert = routed.selected.matrix()(t, k);
        if (expert < 0 && columns == experts) continue;
        const auto at = static_cast<std::size_t>(expert < 0 ? columns - 1 : expert);
        set.counts[at] += 1;
        set.mean_weights[at] += routed.weights.at(t, k);
      }
    }
    if (set.tokens == 0) return 0.0;
    ++sets;
    for (double& value : set.mean_scores) value /= set.tokens;
    for (double& value : set.mean_weights) value /= set.tokens;
    set.mean_squared_lse /= set.tokens;
    if (step && !pass.load.empty()) {  // counts of earlier passes too
      for (std::size_t i = 0; i < set.counts.size(); ++i) set.counts[i] += pass.load[i];
      set.tokens += pass.load[set.counts.size()];
    }
    return single.loss(set.view());
  };
  return sum_over_balancers(balancer, [&](const auto& single) {
    constexpr balance_scope scope = std::remove_cvref_t<decltype(single)>::spec.scope;
    const index_t length = scope == balance_scope::sequence ? pass.positions
                           : scope == balance_scope::group  ? tokens / pass.groups
                                                            : tokens;
    double sum = 0;
    index_t sets = 0;
    for (index_t begin = 0; begin < tokens; begin += length)
      sum += of_set(single, begin, begin + length, scope == balance_scope::step, sets);
    return sets > 0 ? sum / static_cast<double>(sets) : 0.0;
  });
}

namespace detail {

inline std::vector<double> random_scores(index_t experts, std::uint64_t seed) {
  const tensor<double> values = tensor<double>::random(1, experts, seed);
  return reference_softmax(values).values;
}

inline bool no_derivative(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double d) { return d == 0; });
}

template <SingleBalancer B>
void balancer_derivative_laws(const B& balancer, index_t experts) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    owned_statistics<double> at = owned_statistics<double>::proportional(random_scores(experts, seed), 2);
    at.counts = owned_statistics<double>::proportional(random_scores(experts, 50 + seed), 2).counts;  // not the scores'
    at.mean_weights = random_scores(experts, 100 + seed);
    std::vector<double> to_score, to_weight;
    for (index_t i = 0; i < experts; ++i) {
      to_score.push_back(balancer.d_mean_score(at.view(), i));
      if constexpr (B::spec.mean_weights) to_weight.push_back(balancer.d_mean_weight(at.view(), i));
    }
    const auto loss = [&] { return balancer.loss(at.view()); };
    REQUIRE(std::isfinite(loss()));
    if (no_derivative(to_score)) {
      const double before = loss();
      for (double& score : at.mean_scores) {
        score += 0.1;
        REQUIRE(loss() == before);
        score -= 0.1;
      }
    } else {
      REQUIRE(gradient_mismatch(loss, at.mean_scores, to_score) == "");
    }
    if (!no_derivative(to_weight)) REQUIRE(gradient_mismatch(loss, at.mean_weights, to_weight) == "");

    // One token: mean_squared_lse is lse^2, and d_log_sum_exp the derivative of the loss to lse.
    std::vector<double> lse = {0.3 + static_cast<double>(seed)};
    const std::vector<double> through = {balancer.d_log_sum_exp(lse[0])};
    const auto loss_of_lse = [&] {
      owned_statistics<double> one = at;
      one.mean_squared_lse = lse[0] * lse[0];
      return balancer.loss(one.view());
    };
    if (through[0] == 0) {
      const double before = loss_of_lse();
      lse[0] += 0.5;
      REQUIRE(loss_of_lse() == before);
    } else {
      REQUIRE(gradient_mismatch(loss_of_lse, lse, through) == "");
    }
    if (!B::spec.logit_gradients) {
      REQUIRE(through[0] == 0);
      for (const double d : to_score) REQUIRE(d == 0);
    }

    // float: a few operations and a sum of E terms.
    REQUIRE(std::abs(static_cast<double>(balancer.loss(at.as<float>().view())) - loss()) <=
            2.0 * static_cast<double>(experts + 8) * 0x1p-24 * (1 + std::abs(loss())));
  }
}

// At its minimum at uniform routing, where counts and weights go with scores; the numbering of experts means nothing.
template <SingleBalancer B>
void balancer_load_laws(const B& balancer, index_t experts) {
  const double share = 1.0 / static_cast<double>(experts);
  const auto uniform =
      owned_statistics<double>::proportional(std::vector<double>(static_cast<std::size_t>(experts), share), 2);
  const double least = balancer.loss(uniform.view());
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    std::vector<double> scores = random_scores(experts, seed);
    const auto uneven = owned_statistics<double>::proportional(scores, 2);
    const double loss = balancer.loss(uneven.view());
    const double allowed =
        4.0 * static_cast<double>(experts + 8) * 0x1p-53 * (1 + std::abs(loss));  // sums of E terms in two orders
    REQUIRE(loss >= least - allowed);
    std::reverse(scores.begin(), scores.end());
    REQUIRE(std::abs(balancer.loss(owned_statistics<double>::proportional(scores, 2).view()) - loss) <= allowed);
  }
}

// The bias rests at balance and where nothing was routed; elsewhere it moves towards the experts with less than the
// mean load. Whole numbers below 2^24: means of balanced loads are exact in float.
template <class M, SingleBalancer B>
void balancer_end_step_laws(const B& balancer, index_t experts) {
  if constexpr (B::spec.selection_bias) {
    const auto count = static_cast<std::size_t>(experts);
    const auto step = [&](auto group, std::vector<M> bias, const std::vector<M>& counts) {
      balancer.end_step(group, bias.data(), counts.data(), experts);
      return bias;
    };
    const std::vector<M> start = tensor<M>::random(1, experts, 4, 0.01).values;
    for (const double load : {0.0, 1.0, 3.0, 100003.0})
      REQUIRE(step(serial_group{}, start, std::vector<M>(count, static_cast<M>(load))) == start);
    const random_source draw{5, random_stream::sampling};
    for (std::uint64_t round = 0; round < 6; ++round) {
      std::vector<M> counts;
      for (std::size_t i = 0; i < count; ++i)
        counts.push_back(static_cast<M>(draw.below(round < 3 ? 4 : 100000, round, i)));
      const std::vector<M> moved = step(serial_group{}, start, counts);
      REQUIRE(step(shuffled_group(static_cast<std::uint32_t>(round + 1)), start, counts) == moved);
      const double sum = std::accumulate(counts.begin(), counts.end(), 0.0);
      for (std::size_t i = 0; i < count; ++i) {
        const double below = sum - static_cast<double>(counts[i]) * static_cast<double>(experts);
        REQUIRE((moved[i] > start[i]) == (below > 0));
        REQUIRE((moved[i] < start[i]) == (below < 0));
      }
    }
  }
}

// The routing of a layer with this balancer: its loss is that of the definition, and its gradient to the logits that of
// sum of d_weights weights + scale * loss. Perturbations change no selection, so counts are fixed as they should be.
template <class R, Balancer B>
void balancer_layer_law(const R& router, const B& balancer, const routed_pass& pass) {
  constexpr index_t slots = R::spec.experts_per_token;
  const double scale = 1.5;
  context<cpu> ctx({.threads = 1});
  // No gradient through top-1 weights that are 1: all of it is the balancer's.
  const tensor<double> d_weights = tensor<double>::random(pass.tokens(), slots, 6, 0.25);
  const routing_result routed = route(ctx, router, balancer, pass, d_weights, scale);
  for (index_t t = 0; t < pass.tokens(); ++t) {
    if (!pass.padding(t)) continue;
    for (index_t k = 0; k < slots; ++k) REQUIRE((routed.selected.at(t, k) == -1 && routed.weights.at(t, k) == 0));
    for (index_t i = 0; i < pass.logits.columns; ++i) REQUIRE(routed.d_logits.at(t, i) == 0);
  }
  if constexpr (!graft::detail::reads_all_scores<B>) {
    const double want = naive_balance_loss(router, balancer, pass, routed);
    // Sums of E and T terms of about 1.
    REQUIRE(std::abs(routed.loss - want) <=
            8.0 * static_cast<double>(pass.experts + pass.tokens()) * 0x1p-53 * (1 + std::abs(want)));
  }

  routed_pass moved = pass;
  const auto f = [&] {
    const routing_result now = route(ctx, router, balancer, moved);
    double sum = scale * now.loss;
    for (std::size_t i = 0; i < now.weights.values.size(); ++i) sum += d_weights.values[i] * now.weights.values[i];
    return sum;
  };
  if (std::all_of(routed.d_logits.values.begin(), routed.d_logits.values.end(),
                  [](double d) { return std::abs(d) < 1e-14; })) {
    // One expert: the softmax is 1. One slot whose weight is 1, and a balancer that does not push. Or all is padding.
    bool tokens = false;
    for (index_t t = 0; t < pass.tokens(); ++t) tokens = tokens || !pass.padding(t);
    REQUIRE((pass.experts == 1 || !tokens || (R::spec.weights_sum_to_one && !graft::detail::pushes_on_logits<B>)));
    return;
  }
  REQUIRE(gradient_mismatch(f, moved.logits.values, routed.d_logits.values) == "");
}

}  // namespace detail

// Passes of four sequences of three tokens: in one, two and four groups, with and without earlier passes of the step,
// with padding behind the tokens, and with a sequence of padding alone.
inline std::vector<routed_pass> routed_passes(index_t experts, index_t columns, std::uint64_t seed) {
  std::vector<routed_pass> passes;
  for (const index_t groups : {1, 2, 4}) {
    routed_pass pass;
    pass.experts = experts;
    pass.groups = groups;
    pass.logits = tensor<double>::random(12, columns, seed + static_cast<std::uint64_t>(groups));
    if (groups != 1) pass.ids = {5, 1, -1, 3, 3, 0, -1, -1, -1, 7, -1, -1};
    if (groups != 2) {
      pass.load.assign(static_cast<std::size_t>(routing_load{columns}.size()), 0.0);
      for (index_t i = 0; i < columns; ++i) pass.load[static_cast<std::size_t>(i)] = static_cast<double>(1 + i % 3);
      pass.load[static_cast<std::size_t>(columns)] = 17;
    }
    passes.push_back(pass);
  }
  return passes;
}

template <Balancer B>
void balancer_laws(const B& balancer) {
  static_assert(check_balancer<B>());
  for (const index_t experts : {1, 2, 3, 8, 21}) {
    CAPTURE(B::name, experts);
    graft::detail::for_each_balancer(balancer, [&](const auto& single) {
      detail::balancer_derivative_laws(single, experts);
      detail::balancer_load_laws(single, experts);
      detail::balancer_end_step_laws<float>(single, experts);
      detail::balancer_end_step_laws<double>(single, experts);
    });
    for (const routed_pass& pass : routed_passes(experts, experts, 5)) {
      CAPTURE(pass.groups);
      detail::balancer_layer_law(top_k<1>{}, balancer, pass);
      if (experts < 2) continue;
      detail::balancer_layer_law(top_k<2>{}, balancer, pass);
      detail::balancer_layer_law(switch_like{}, balancer, pass);
    }
  }
}

}  // namespace graft::test
