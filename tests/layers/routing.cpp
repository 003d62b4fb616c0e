// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The statistics of a layer's routing against naive ones, over passes, groups, sequences and padding. The gradient of
// router and balancer together is in router_balancer.cpp. Longer than 400 lines: one reference serves every case.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/layers/routing.hpp>
#include <graft/policies/balancer/all_balancers.hpp>
#include <graft/policies/router/top_k.hpp>

#include "gradient_check.hpp"
#include "laws/balancer_laws.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

namespace routing_tests {

using namespace graft;
using namespace graft::test;

namespace {

// Balancers that make every table there is.
using every_scope = all<switch_loss, sequence_loss, global_batch_loss, btx_loss, z_loss>;

// The softmax over the experts and one column behind them.
struct all_columns : softmax_probabilities {
  template <class Group, class M>
  GRAFT_HOST_DEVICE softmax_row<M> prepare(Group& group, const M* logits, index_t experts) const {
    return softmax_row<M>::over(group, logits, experts + 1);
  }
};

// A token whose second logit is below the one behind the experts' uses one slot: a router with an extra logit and with
// empty slots.
struct one_or_two : row_router<logit_score, select_top<2>, softmax_over_selected> {
  using base = row_router<logit_score, select_top<2>, softmax_over_selected>;
  static constexpr const char* name = "one_or_two";
  static constexpr router_spec spec{
      .experts_per_token = 2, .weights_sum_to_one = true, .empty_slots = true, .extra_logits = 1};
  constexpr all_columns probabilities() const { return {}; }

  template <class Group, class M>
  GRAFT_HOST_DEVICE void forward(Group& group, const routing_token<M>& token, const M* logits, index_t experts,
                                 std::int32_t* selected, M* weights) const {
    base::forward(group, token, logits, experts, selected, weights);
    if (logits[selected[1]] > logits[experts]) return;
    selected[1] = -1;
    weights[0] = 1, weights[1] = 0;
  }
};

template <class M>
struct measured {
  tensor<std::int32_t> selected;
  tensor<M> weights, groups, sequences, step;
  std::vector<M> load;
};

template <class Space, class M>
tensor<M> copy_of(const view<M, 2, Space>& table) {
  tensor<M> result(table.extent(0), table.extent(1));
  std::copy(table.data, table.data + table.size(), result.values.begin());
  return result;
}

struct pass_shape {
  index_t tokens = 12, groups = 1, positions = 1;
};

template <class M, class Context, class R>
measured<M> measure(Context& ctx, const R& router, const tensor<M>& logits, const pass_shape& shape,
                    std::vector<std::int32_t> ids, std::vector<M> load) {
  constexpr index_t slots = R::spec.experts_per_token;
  workspace_scope scope(ctx);
  routing_pass<M, host_space> pass;
  pass.experts = logits.columns - R::spec.extra_logits;
  pass.positions = shape.positions;
  pass.balance_groups = shape.groups;
  if (!ids.empty()) pass.ids = vector_view<const std::int32_t>(ids.data(), shape.tokens);
  if (!load.empty()) pass.load = vector_view<M>(load.data(), static_cast<index_t>(load.size()));
  measured<M> result;
  result.selected = tensor<std::int32_t>(shape.tokens, slots, 99);
  result.weights = tensor<M>(shape.tokens, slots, 99);
  const auto statistics = route_forward(ctx, router, every_scope{}, pass, result.selected.matrix(),
                                        result.weights.matrix(), logits.matrix());
  CHECK(statistics.slots == slots);
  CHECK(statistics.columns == logits.columns);
  CHECK(statistics.tokens == shape.tokens);
  result.groups = copy_of(statistics.groups);
  result.sequences = copy_of(statistics.sequences);
  result.step = copy_of(statistics.step);
  result.load = load;
  return result;
}

// The rows of one table from what was routed. The last columns: tokens, own tokens and sets, whole numbers.
template <class M>
tensor<double> naive_table(const measured<M>& got, const tensor<M>& logits, index_t experts, index_t rows,
                           const std::vector<std::int32_t>& ids) {
  const index_t columns = logits.columns, length = logits.rows / rows;
  const graft::detail::statistics_columns at{columns};
  const tensor<double> scores = reference_softmax(logits.wide());
  tensor<double> table(rows, at.width());
  double sets = 0;
  for (index_t t = 0; t < logits.rows; ++t) {
    if (!ids.empty() && ids[static_cast<std::size_t>(t)] < 0) continue;
    double* row = &table(t / length, 0);
    double total = 0, entropy = 0;
    for (index_t i = 0; i < columns; ++i) {
      total += std::exp(logits.at(t, i));
      entropy -= scores.at(t, i) * std::log(scores.at(t, i));
      row[at.score(i)] += scores.at(t, i);
    }
    row[at.squared_lse()] += std::log(total) * std::log(total);
    row[at.entropy()] += entropy;
    row[at.tokens()] += 1;
    for (index_t k = 0; k < got.selected.columns; ++k) {
      const auto expert = static_cast<index_t>(got.selected.at(t, k));
      if (expert >= 0) {
        row[at.count(expert)] += 1;
        row[at.weight(expert)] += got.weights.at(t, k);
      } else {
        for (index_t i = experts; i < columns; ++i) row[at.count(i)] += 1;
      }
    }
  }
  for (index_t r = 0; r < rows; ++r) {
    const double own = table.at(r, at.tokens());
    for (index_t i = at.score(0); i < at.tokens(); ++i) table(r, i) = own > 0 ? table.at(r, i) / own : 0;
    table(r, at.own_tokens()) = own;
    for (index_t i = 0; i < columns; ++i) table(r, at.filled()) += table.at(r, at.count(i));
    sets += own > 0 ? 1 : 0;
  }
  for (index_t r = 0; r < rows; ++r) table(r, at.sets()) = sets;
  return table;
}

template <class M>
void check_table(const tensor<M>& got, const tensor<double>& want, index_t columns, index_t length) {
  const graft::detail::statistics_columns at{columns};
  // Each score is a softmax over E (exp off by 5 u, a sum of E terms), then length / 16 + 16 additions at most; scores
  // add up to at most 1. The squared logsumexp and the entropy: the same on numbers of their size, twice.
  const double operations = static_cast<double>(columns + length + 32);
  CHECK(mismatch(got, want, [&](index_t r, index_t i) {
          if (i < at.score(0) || i >= at.tokens()) return 1e-30;  // whole numbers
          if (i < at.squared_lse()) return bound<M>(want.at(r, i), operations, 1);
          return bound<M>(want.at(r, i), 2 * operations, 4 + want.at(r, at.squared_lse()));
        }) == "");
}

// A share of padding behind the tokens of each sequence; the second sequence is all padding.
std::vector<std::int32_t> padded_ids(const pass_shape& shape) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(shape.tokens), 3);
  for (index_t t = 0; t < shape.tokens; ++t) {
    const index_t sequence = t / shape.positions, position = t % shape.positions;
    if (sequence == 1 || position > (sequence * 5 + 2) % shape.positions) ids[static_cast<std::size_t>(t)] = -1;
  }
  return ids;
}

template <class M>
std::vector<M> no_load(index_t columns) {
  return std::vector<M>(static_cast<std::size_t>(routing_load{columns}.size()), M(0));
}

}  // namespace

// Sequences of 1 to 63 tokens: below, at and above a chunk of 16, and several of them.
TEMPLATE_TEST_CASE("routing: statistics against naive sums, for groups, sequences and the step", "[layers]", float,
                   double) {
  using M = TestType;
  const pass_shape shape = GENERATE(pass_shape{1, 1, 1}, pass_shape{192, 1, 32}, pass_shape{192, 3, 16},
                                    pass_shape{126, 2, 63}, pass_shape{150, 5, 15}, pass_shape{12, 12, 1});
  const index_t columns = GENERATE(3, 6);
  const bool padded = GENERATE(false, true);
  const std::vector<std::int32_t> ids = padded ? padded_ids(shape) : std::vector<std::int32_t>{};
  CAPTURE(shape.tokens, shape.groups, shape.positions, columns, padded);
  const tensor<M> logits = tensor<M>::random(shape.tokens, columns, 3, 2.0);

  context<cpu> one({.threads = 1}), two({.threads = 2});
  shuffled_context shuffled(9);
  const auto check = [&](const auto& router) {
    const index_t experts = columns - router.spec.extra_logits;
    const measured<M> got = measure(one, router, logits, shape, ids, no_load<M>(columns));
    for (index_t t = 0; t < shape.tokens; ++t)
      for (index_t k = 0; k < 2; ++k)
        if (!ids.empty() && ids[static_cast<std::size_t>(t)] < 0) {
          REQUIRE(got.selected.at(t, k) == -1);
          REQUIRE(got.weights.at(t, k) == 0);
        }
    const index_t sequences = shape.tokens / shape.positions;
    check_table(got.groups, naive_table(got, logits, experts, shape.groups, ids), columns, shape.tokens);
    check_table(got.sequences, naive_table(got, logits, experts, sequences, ids), columns, shape.tokens);
    tensor<double> whole = naive_table(got, logits, experts, 1, ids);
    const graft::detail::statistics_columns at{columns};
    const double tokens = whole.at(0, at.tokens());
    CHECK(got.load[static_cast<std::size_t>(columns)] == static_cast<M>(tokens));
    for (index_t i = 0; i < columns; ++i)
      CHECK(got.load[static_cast<std::size_t>(i)] == static_cast<M>(whole.at(0, at.count(i))));
    CHECK(std::abs(static_cast<double>(got.load[static_cast<std::size_t>(routing_load{columns}.entropy())]) -
                   tokens * whole.at(0, at.entropy())) <=
          bound<M>(0, 4.0 * static_cast<double>(columns + shape.tokens + 32),
                   tokens * (4 + whole.at(0, at.squared_lse()))));
    CHECK(got.load[static_cast<std::size_t>(routing_load{columns}.dropped())] == 0);
    whole(0, at.sets()) = 1;
    check_table(got.step, whole, columns, shape.tokens);

    // Neither threads nor the order of rows matter, nor does counting.
    const measured<M> on_two = measure(two, router, logits, shape, ids, no_load<M>(columns));
    CHECK(same_bits(on_two.groups, got.groups));
    CHECK(same_bits(on_two.sequences, got.sequences));
    CHECK(same_bits(on_two.step, got.step));
    CHECK(on_two.load == got.load);
    const measured<M> uncounted = measure(one, router, logits, shape, ids, {});
    CHECK(same_bits(uncounted.groups, got.groups));
    CHECK(same_bits(uncounted.step, got.step));
    const measured<M> in_any_order = measure(shuffled, router, logits, shape, ids, no_load<M>(columns));
    CHECK(in_any_order.selected.values == got.selected.values);
    check_table(in_any_order.groups, naive_table(got, logits, experts, shape.groups, ids), columns, shape.tokens);
    check_table(in_any_order.step, whole, columns, shape.tokens);
  };
  check(top_k<2>{});
  if (columns > 3) check(one_or_two{});
}

TEST_CASE("routing: passes that do not divide are refused", "[layers]") {
  context<cpu> ctx({.threads = 1});
  const auto run = [&](const auto& balancer, index_t tokens, index_t groups, index_t positions) {
    routed_pass pass;
    pass.logits = tensor<double>(tokens, 4);
    pass.groups = groups;
    pass.positions = positions;
    route(ctx, top_k<2>{}, balancer, pass);
  };
  CHECK_THROWS_WITH(run(switch_loss{}, 10, 3, 10),
                    "routing: expected a number of balance groups that divides the tokens, got 3 groups, 10 tokens");
  CHECK_THROWS_AS(run(switch_loss{}, 10, 0, 10), error);
  CHECK_THROWS_AS(run(switch_loss{}, 0, 1, 1), error);
  CHECK_THROWS_WITH(run(sequence_loss{}, 12, 2, 12),
                    "routing: a balancer looks at sequences: expected whole sequences in each balance group, got 12 "
                    "tokens of 12 positions in 2 groups");
  CHECK_THROWS_AS(run(sequence_loss{}, 10, 1, 3), error);
  CHECK_NOTHROW(run(switch_loss{}, 12, 2, 12));  // groups may cut sequences where nobody looks at these
}

// Only what balancers look at is measured.
TEST_CASE("routing: tables without a reader are absent", "[layers]") {
  context<cpu> ctx({.threads = 1});
  const tensor<double> logits = tensor<double>::random(6, 4, 2);
  tensor<std::int32_t> selected(6, 2);
  tensor<double> weights(6, 2);
  routing_pass<double, host_space> pass;
  pass.experts = 4;
  pass.positions = 3;
  workspace_scope scope(ctx);
  const auto tables = [&](const auto& balancer) {
    return route_forward(ctx, top_k<2>{}, balancer, pass, selected.matrix(), weights.matrix(), logits.matrix());
  };
  CHECK(tables(no_balancer{}).sequences.data == nullptr);
  CHECK(tables(no_balancer{}).step.data == nullptr);
  CHECK(tables(no_balancer{}).d_scores.data == nullptr);
  CHECK(tables(sequence_loss{}).sequences.extent(0) == 2);
  CHECK(tables(all<z_loss, global_batch_loss>{}).step.extent(0) == 1);
  CHECK(tables(dirichlet_prior{}).d_scores.extent(1) == 4);
}

// The load, and what a bias makes of it, of four sequences in one pass and in four: the same. So are losses over groups
// and sequences; losses over the step are by their definition those of the last pass only where one pass is the step.
TEST_CASE("routing: one pass of four sequences and four passes of one", "[layers]") {
  const index_t experts = 5, positions = 21, sequences = 4;
  const tensor<double> logits = tensor<double>::random(sequences * positions, experts, 7);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(sequences * positions), 2);
  for (const index_t t : {20, 60, 61, 62}) ids[static_cast<std::size_t>(t)] = -1;
  context<cpu> ctx({.threads = 1});
  const top_k<2> router;
  const tensor<double> d_weights = tensor<double>::random(sequences * positions, 2, 4, 0.1);

  struct outcome {
    std::vector<double> load, bias;
    double loss = 0;
    std::vector<double> d_logits;
  };
  const auto run = [&](const auto& balancer, index_t passes, index_t groups) {
    outcome result{no_load<double>(experts), std::vector<double>(static_cast<std::size_t>(experts), 0.0), 0, {}};
    const index_t length = sequences / passes * positions;
    for (index_t pass = 0; pass < passes; ++pass) {
      routed_pass part;
      part.experts = experts, part.positions = positions, part.groups = groups;
      part.load = result.load;
      part.ids.assign(ids.begin() + pass * length, ids.begin() + (pass + 1) * length);
      part.logits = tensor<double>(length, experts);
      std::copy_n(logits.values.begin() + pass * length * experts, length * experts, part.logits.values.begin());
      tensor<double> upstream(length, 2);
      std::copy_n(d_weights.values.begin() + pass * length * 2, length * 2, upstream.values.begin());
      const routing_result routed = route(ctx, router, balancer, part, upstream, 1.0 / static_cast<double>(passes));
      result.load = routed.load;
      result.loss += routed.loss / static_cast<double>(passes);
      result.d_logits.insert(result.d_logits.end(), routed.d_logits.values.begin(), routed.d_logits.values.end());
    }
    end_balance_step(ctx, balancer, vector_view<double>(result.bias.data(), experts),
                     vector_view<double>(result.load.data(), static_cast<index_t>(result.load.size())));
    return result;
  };
  const auto equal = [&](const outcome& a, const outcome& b) {
    for (std::size_t i = 0; i <= static_cast<std::size_t>(experts); ++i)
      CHECK(a.load[i] == b.load[i]);  // whole numbers
    const auto entropy = static_cast<std::size_t>(routing_load{experts}.entropy());
    CHECK(std::abs(a.load[entropy] - b.load[entropy]) <= 1e-12 * a.load[entropy]);
    CHECK(a.load[entropy] > 0);
    CHECK(a.bias == b.bias);
  };
  const auto same_loss = [&](const outcome& a, const outcome& b) {
    CHECK(a.loss > 0);
    CHECK(std::abs(a.loss - b.loss) <= 1e-13 * a.loss);
    for (std::size_t i = 0; i < a.d_logits.size(); ++i) REQUIRE(std::abs(a.d_logits[i] - b.d_logits[i]) <= 1e-14);
  };
  using biased = all<loss_free_bias, sequence_loss>;
  const biased by_sequence{.balancers = {loss_free_bias{.rate = 0.5}, {sequence_loss{.coefficient = 1}}}};
  const outcome whole = run(by_sequence, 1, 1), parts = run(by_sequence, 4, 1);
  equal(whole, parts);
  same_loss(whole, parts);
  CHECK(whole.load[static_cast<std::size_t>(experts)] == 80);
  CHECK(std::any_of(whole.bias.begin(), whole.bias.end(), [](double b) { return b == 0.5; }));
  CHECK(std::any_of(whole.bias.begin(), whole.bias.end(), [](double b) { return b == -0.5; }));

  using grouped = all<switch_loss, btx_loss>;
  const grouped by_group{.balancers = {switch_loss{.coefficient = 1}, {btx_loss{.coefficient = 1}}}};
  equal(run(by_group, 1, 4), run(by_group, 4, 1));
  same_loss(run(by_group, 1, 4), run(by_group, 4, 1));
  equal(run(by_group, 1, 1), run(by_group, 2, 1));
  CHECK(std::abs(run(by_group, 1, 1).loss - run(by_group, 2, 1).loss) > 1e-6);

  const global_batch_loss global{.coefficient = 1};
  equal(run(global, 1, 1), run(global, 4, 1));
  same_loss(run(global, 1, 1), run(switch_loss{.coefficient = 1}, 1, 1));  // one pass: the batch is the group
  CHECK(std::abs(run(global, 4, 1).loss - run(by_group, 4, 1).loss) > 1e-6);
}

// The loss of every pass of a step, with the counts that were known by then.
TEST_CASE("routing: the step's load grows from pass to pass", "[layers]") {
  const index_t experts = 4, tokens = 6;
  context<cpu> ctx({.threads = 1});
  const global_batch_loss balancer{.coefficient = 1};
  std::vector<double> load = no_load<double>(experts), counts(4, 0.0);
  for (std::uint64_t p = 0; p < 3; ++p) {
    routed_pass pass;
    pass.experts = experts;
    pass.logits = tensor<double>::random(tokens, experts, 20 + p);
    pass.load = load;
    const routing_result routed = route(ctx, top_k<2>{}, balancer, pass);
    for (const std::int32_t expert : routed.selected.values) counts[static_cast<std::size_t>(expert)] += 1;
    const tensor<double> scores = reference_softmax(pass.logits);
    double want = 0;
    for (index_t i = 0; i < experts; ++i)
      for (index_t t = 0; t < tokens; ++t)
        want += 4 * counts[static_cast<std::size_t>(i)] / (2.0 * static_cast<double>(p + 1) * 6) * scores.at(t, i) / 6;
    CHECK(std::abs(routed.loss - want) <= 1e-14);
    load = routed.load;
  }
}

// A pass that is computed again for its backward pass: nothing is counted twice and nothing changes.
TEST_CASE("routing: computing a pass again without load and loss changes nothing", "[layers]") {
  const index_t experts = 5, tokens = 24;
  context<cpu> ctx({.threads = 1});
  const every_scope balancer;
  const top_k<2> router;
  const tensor<double> logits = tensor<double>::random(tokens, experts, 5);
  std::vector<double> load = no_load<double>(experts);
  double loss = 0;
  routing_pass<double, host_space> pass;
  pass.experts = experts, pass.positions = 8;
  pass.load = vector_view<double>(load.data(), static_cast<index_t>(load.size()));
  pass.loss = vector_view<double>(&loss, 1);
  tensor<std::int32_t> selected(tokens, 2), again(tokens, 2);
  tensor<double> weights(tokens, 2), weights_again(tokens, 2), d_logits(tokens, experts), d_again(tokens, experts);
  workspace_scope scope(ctx);
  const auto statistics =
      route_forward(ctx, router, balancer, pass, selected.matrix(), weights.matrix(), logits.matrix());
  const std::vector<double> counted = load;
  const double first = loss;
  CHECK(loss > 0);
  pass.load = {}, pass.loss = {};
  route_forward(ctx, router, balancer, pass, again.matrix(), weights_again.matrix(), logits.matrix());
  CHECK(load == counted);
  CHECK(loss == first);
  CHECK(again.values == selected.values);
  CHECK(same_bits(weights, weights_again));
  const auto backward = [&](tensor<double>& into, const tensor<std::int32_t>& of, const tensor<double>& with) {
    tensor<double> upstream = tensor<double>::random(tokens, 2, 6);
    route_backward(ctx, router, balancer, pass, into.matrix(), statistics, logits.matrix(), of.matrix(), with.matrix(),
                   upstream.matrix(), 1.0);
  };
  backward(d_logits, selected, weights);
  backward(d_again, again, weights_again);
  CHECK(same_bits(d_logits, d_again));
}

// Padding behind the tokens of a batch, and a sequence of padding alone: load, losses and gradients are those of the
// tokens. Chunks of 16 tokens cut the sums elsewhere, so all is equal up to the rounding of sums.
TEST_CASE("routing: a padded batch equals the batch without padding", "[layers]") {
  const index_t experts = 6, length = 21, positions = 40;
  context<cpu> ctx({.threads = 1});
  const auto check = [&](const auto& router, const auto& balancer) {
    routed_pass plain, padded;
    plain.experts = padded.experts = experts;
    plain.positions = length, padded.positions = positions;
    plain.load = padded.load = no_load<double>(experts);
    plain.logits = tensor<double>::random(3 * length, experts, 31);
    padded.logits = tensor<double>(4 * positions, experts, 1e300);  // never read
    padded.ids.assign(static_cast<std::size_t>(4 * positions), -1);
    std::vector<index_t> place;  // of every token in the padded batch; the second sequence has none
    for (const index_t sequence : {0, 2, 3})
      for (index_t t = 0; t < length; ++t) place.push_back(sequence * positions + t);
    const tensor<double> d_weights = tensor<double>::random(3 * length, 2, 32);
    tensor<double> d_padded(4 * positions, 2, 1e300);
    for (std::size_t t = 0; t < place.size(); ++t) {
      padded.ids[static_cast<std::size_t>(place[t])] = 1;
      for (index_t i = 0; i < experts; ++i) padded.logits(place[t], i) = plain.logits.at(static_cast<index_t>(t), i);
      for (index_t k = 0; k < 2; ++k) d_padded(place[t], k) = d_weights.at(static_cast<index_t>(t), k);
    }
    const routing_result want = route(ctx, router, balancer, plain, d_weights);
    const routing_result got = route(ctx, router, balancer, padded, d_padded);
    CHECK(want.loss > 0);
    CHECK(std::abs(got.loss - want.loss) <= 1e-14 * (1 + want.loss));
    for (std::size_t i = 0; i <= static_cast<std::size_t>(experts); ++i) CHECK(got.load[i] == want.load[i]);
    for (std::size_t i = 0; i < want.load.size(); ++i) CHECK(std::abs(got.load[i] - want.load[i]) <= 1e-12);
    index_t next = 0;
    for (index_t t = 0; t < 4 * positions; ++t) {
      const bool token = next < 3 * length && place[static_cast<std::size_t>(next)] == t;
      for (index_t i = 0; i < experts; ++i)
        REQUIRE(std::abs(got.d_logits.at(t, i) - (token ? want.d_logits.at(next, i) : 0.0)) <= 1e-14);
      next += token ? 1 : 0;
    }
  };
  using everything = all<switch_loss, sequence_loss, global_batch_loss, btx_loss, z_loss, dirichlet_prior>;
  check(top_k<2>{}, everything{});
  check(top_k<2>{}, sequence_loss{.coefficient = 1});
  check(switch_like{}, dirichlet_prior{.coefficient = 1});
  check(top_k<2>{}, all<global_batch_loss, z_loss>{});
}

// A micro-batch of nothing but padding adds nothing, and has no gradient.
TEST_CASE("routing: a pass of padding alone", "[layers]") {
  context<cpu> ctx({.threads = 1});
  using everything = all<switch_loss, sequence_loss, global_batch_loss, btx_loss, z_loss, dirichlet_prior>;
  routed_pass pass;
  pass.positions = 4;
  pass.logits = tensor<double>(8, 4, std::nan(""));
  pass.ids.assign(8, -1);
  pass.load = {3, 2, 1, 0, 3, 0.5, 0};
  const routing_result routed = route(ctx, top_k<2>{}, everything{}, pass, tensor<double>(8, 2, 1));
  CHECK(routed.loss == 0);
  CHECK(routed.load == pass.load);
  for (const double d : routed.d_logits.values) CHECK(d == 0);
  for (const std::int32_t expert : routed.selected.values) CHECK(expert == -1);
}

// Probabilities that are not the softmax: scores are theirs, the z-loss is over the softmax of the logits.
namespace {
struct by_sigmoid : top_k<2> {
  static constexpr const char* name = "by_sigmoid";
  constexpr sigmoid_probabilities probabilities() const { return {}; }
};
}  // namespace

TEST_CASE("routing: normalised sigmoid scores", "[layers]") {
  const index_t experts = 4, positions = 5;
  context<cpu> ctx({.threads = 1});
  routed_pass pass;
  pass.experts = experts, pass.positions = positions;
  pass.logits = tensor<double>::random(2 * positions, experts, 8);
  const routing_result routed = route(ctx, by_sigmoid{}, sequence_loss{.coefficient = 1}, pass);
  double want = 0;
  for (index_t s = 0; s < 2; ++s) {
    std::vector<double> counts(4, 0.0), scores(4, 0.0);
    for (index_t t = s * positions; t < (s + 1) * positions; ++t) {
      double sum = 0;
      for (index_t i = 0; i < experts; ++i) sum += 1 / (1 + std::exp(-pass.logits.at(t, i)));
      for (index_t i = 0; i < experts; ++i)
        scores[static_cast<std::size_t>(i)] += 1 / (1 + std::exp(-pass.logits.at(t, i))) / sum / 5;
      for (index_t k = 0; k < 2; ++k) counts[static_cast<std::size_t>(routed.selected.at(t, k))] += 1;
    }
    for (std::size_t i = 0; i < 4; ++i) want += 4 * counts[i] / (2 * 5) * scores[i] / 2;
  }
  CHECK(std::abs(routed.loss - want) <= 1e-14);
  // 1 at balance, however small the scores: equal logits of -50.
  pass.logits = tensor<double>(2 * positions, experts, -50);
  CHECK(std::abs(route(ctx, by_sigmoid{}, sequence_loss{.coefficient = 1}, pass).loss - 1) <= 1e-14);
  pass.logits = tensor<double>::random(2 * positions, experts, 8);
  routed_pass soft = pass;
  CHECK(route(ctx, by_sigmoid{}, z_loss{}, pass).loss == route(ctx, top_k<2>{}, z_loss{}, soft).loss);
}

}  // namespace routing_tests
