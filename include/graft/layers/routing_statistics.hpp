// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What is measured of the routing of a layer: sums over chunks of tokens, then over the sets of tokens that balancers
// look at, then over the passes of a step.

#include <cstdint>
#include <type_traits>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/ops/operands.hpp>
#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/router/routing_pass.hpp>

namespace graft {

// The load of one layer, summed since the metrics were cleared. In memory: N counts, then three sums.
struct routing_load {
  index_t columns = 0;  // N
  index_t slots = 1;    // K, of each token

  GRAFT_HOST_DEVICE constexpr index_t tokens() const { return columns; }       // that were routed
  GRAFT_HOST_DEVICE constexpr index_t entropy() const { return columns + 1; }  // of the softmax of the logits, nats
  GRAFT_HOST_DEVICE constexpr index_t dropped() const { return columns + 2; }  // filled slots that no expert worked for
  GRAFT_HOST_DEVICE constexpr index_t size() const { return columns + 3; }
};

namespace detail {

inline constexpr index_t statistics_chunk = 16;

// A row of statistics: N counts, N scores, N weights, six numbers. In partial sums all are sums; in a finished row
// scores, weights, squared_lse and entropy are means over the row's own tokens; counts, tokens and filled, the sum of
// counts, are what fractions are taken of (with scope `step`, of all passes so far); sets is how many rows of the table
// have a token of their own.
struct statistics_columns {
  index_t columns;  // N

  GRAFT_HOST_DEVICE constexpr index_t count(index_t i) const { return i; }
  GRAFT_HOST_DEVICE constexpr index_t score(index_t i) const { return columns + i; }
  GRAFT_HOST_DEVICE constexpr index_t weight(index_t i) const { return 2 * columns + i; }
  GRAFT_HOST_DEVICE constexpr index_t squared_lse() const { return 3 * columns; }
  GRAFT_HOST_DEVICE constexpr index_t entropy() const { return 3 * columns + 1; }
  GRAFT_HOST_DEVICE constexpr index_t tokens() const { return 3 * columns + 2; }
  GRAFT_HOST_DEVICE constexpr index_t own_tokens() const { return 3 * columns + 3; }
  GRAFT_HOST_DEVICE constexpr index_t sets() const { return 3 * columns + 4; }
  GRAFT_HOST_DEVICE constexpr index_t filled() const { return 3 * columns + 5; }
  GRAFT_HOST_DEVICE constexpr index_t width() const { return 3 * columns + 6; }
};

// One set of tokens as a balancer sees it, and one token's part in the layer's loss: 1 / (sets own tokens), 0 for a set
// of padding.
template <class M>
struct balance_set {
  balance_statistics<M> measured{};
  M share = 0;
};

// The sets that one token is in, one for each scope that is measured.
template <class M>
struct token_sets {
  balance_set<M> sequence, group, step;

  template <balance_scope Scope>
  GRAFT_HOST_DEVICE const balance_set<M>& of() const {
    if constexpr (Scope == balance_scope::sequence)
      return sequence;
    else if constexpr (Scope == balance_scope::step)
      return step;
    else
      return group;
  }
};

}  // namespace detail

// In the memory of the context.
template <class M, class Space>
struct routing_statistics {
  view<M, 2, Space> groups;     // (groups, width)
  view<M, 2, Space> sequences;  // (sequences, width); absent when no balancer looks at sequences
  view<M, 2, Space> step;       // (1, width); absent when no balancer looks at the step
  view<M, 2, Space> d_scores;   // (T, N) gradients of losses over all scores; absent when there are none
  index_t columns = 0;          // N
  index_t slots = 0;            // K
  index_t tokens = 0;           // T, padding included
  M choices = 0;

  // The finest set of consecutive tokens that is measured alone.
  index_t tokens_per_unit() const {
    return tokens / (sequences.data != nullptr ? sequences.extent(0) : groups.extent(0));
  }
  GRAFT_HOST_DEVICE detail::balance_set<M> set(const view<M, 2, Space>& table, index_t i) const {
    const detail::statistics_columns at{columns};
    const M* row = table.row(i);
    const M own = row[at.own_tokens()];
    return {{row, row + at.score(0), row + at.weight(0), row[at.squared_lse()], row[at.filled()], row[at.tokens()],
             choices, columns, slots},
            own > M(0) ? M(1) / (own * row[at.sets()]) : M(0)};
  }
  template <balance_scope Scope>
  GRAFT_HOST_DEVICE const view<M, 2, Space>& table() const {
    if constexpr (Scope == balance_scope::sequence)
      return sequences;
    else if constexpr (Scope == balance_scope::step)
      return step;
    else
      return groups;
  }
  GRAFT_HOST_DEVICE detail::token_sets<M> sets_of(index_t token) const {
    const auto in = [&](const view<M, 2, Space>& table) {
      return table.data != nullptr ? set(table, token / (tokens / table.extent(0))) : detail::balance_set<M>{};
    };
    return {in(sequences), in(groups), in(step)};
  }
};

namespace detail {

// A finished row from the chunks [row * chunks, (row + 1) * chunks).
template <class M, class Space>
struct statistics_row {
  view<M, 2, Space> table;
  view<const M, 2, Space> partial;
  index_t columns, chunks;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const statistics_columns at{columns};
    M* target = table.row(row);
    group.for_each(at.own_tokens(), [&](index_t i) {
      M sum = 0;
      for (index_t chunk = 0; chunk < chunks; ++chunk) sum += partial(row * chunks + chunk, i);
      target[i] = sum;
    });
    group.sync();
    const M own = target[at.tokens()];
    group.for_each(at.tokens() - at.score(0), [&](index_t i) {
      M& mean = target[at.score(0) + i];
      mean = own > M(0) ? mean / own : M(0);
    });
    const M filled = group.sum(at.columns, [&](index_t i) { return target[at.count(i)]; });
    group.single([&] {
      target[at.own_tokens()] = own;
      target[at.filled()] = filled;
    });
  }
};

// Once the rows of a pass are finished: how many have tokens, the load, and the row of the step.
template <class M, class Space>
struct load_row {
  routing_statistics<M, Space> statistics;
  view<M, 1, Space> load;  // routing_load, or absent

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t) const {
    const statistics_columns at{statistics.columns};
    const routing_load into{statistics.columns};
    const view<M, 2, Space>& groups = statistics.groups;
    count_sets(group, at, groups);
    if (statistics.sequences.data != nullptr) count_sets(group, at, statistics.sequences);

    M own = 0;
    for (index_t g = 0; g < groups.extent(0); ++g) own += groups(g, at.own_tokens());
    // Means are weighted by the tokens they are of.
    const auto total = [&](index_t i) {
      M sum = 0;
      for (index_t g = 0; g < groups.extent(0); ++g)
        sum += i < at.score(0) ? groups(g, i) : groups(g, i) * groups(g, at.own_tokens());
      return sum;
    };
    if (load.data != nullptr) {
      group.for_each(at.columns, [&](index_t i) { load[i] += total(at.count(i)); });
      group.single([&] {
        load[into.tokens()] += own;
        load[into.entropy()] += total(at.entropy());
      });
      group.sync();
    }
    if (statistics.step.data == nullptr) return;
    M* row = statistics.step.row(0);
    group.for_each(at.tokens(), [&](index_t i) {
      if (i < at.score(0))
        row[i] = load.data != nullptr ? load[i] : total(i);
      else
        row[i] = own > M(0) ? total(i) / own : M(0);
    });
    group.sync();
    const M filled = group.sum(at.columns, [&](index_t i) { return row[at.count(i)]; });
    group.single([&] {
      row[at.filled()] = filled;
      row[at.tokens()] = load.data != nullptr ? load[into.tokens()] : own;
      row[at.own_tokens()] = own;
      row[at.sets()] = M(1);
    });
  }

 private:
  template <class Group>
  GRAFT_HOST_DEVICE void count_sets(Group& group, const statistics_columns& at, const view<M, 2, Space>& table) const {
    const M sets =
        group.sum(table.extent(0), [&](index_t i) { return table(i, at.own_tokens()) > M(0) ? M(1) : M(0); });
    group.for_each(table.extent(0), [&](index_t i) { table(i, at.sets()) = sets; });
  }
};

template <class Balancer, class M, class Space>
struct balance_loss_row {
  Balancer balancer;
  routing_statistics<M, Space> statistics;
  view<M, 1, Space> loss;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t) const {
    for_each_balancer(balancer, [&](const auto& single) {
      const auto& sets = statistics.template table<std::remove_cvref_t<decltype(single)>::spec.scope>();
      const M sum = group.sum(sets.extent(0), [&](index_t i) {
        const balance_set<M> set = statistics.set(sets, i);
        return set.share > M(0) ? single.loss(set.measured) : M(0);
      });
      const M count = sets(0, statistics_columns{statistics.columns}.sets());
      if (count > M(0)) group.single([&] { loss[0] += sum / count; });
      group.sync();
    });
  }
};

template <class Balancer, class M, class Space>
struct end_step_row {
  Balancer balancer;
  view<M, 1, Space> selection_bias;
  view<const M, 1, Space> load;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t) const {
    for_each_balancer(balancer, [&](const auto& single) {
      if constexpr (std::remove_cvref_t<decltype(single)>::spec.selection_bias)
        single.end_step(group, selection_bias.data, load.data, selection_bias.extent(0));
    });
  }
};

}  // namespace detail

// Memory for the statistics of a pass of T tokens. Errors: groups or sequences that do not divide the pass.
template <bool Sequences, bool Step, class M, class Context>
routing_statistics<M, typename Context::space> allocate_statistics(Context& context,
                                                                   const routing_pass<M, typename Context::space>& pass,
                                                                   index_t tokens, index_t columns, index_t slots,
                                                                   M choices) {
  const index_t groups = pass.balance_groups;
  GRAFT_CHECK(groups >= 1 && tokens % groups == 0,
              "routing: expected a number of balance groups that divides the tokens, got ", groups, " groups, ", tokens,
              " tokens");
  GRAFT_CHECK(tokens > 0, "routing: expected at least one token, got ", tokens);
  const index_t width = detail::statistics_columns{columns}.width();
  routing_statistics<M, typename Context::space> statistics;
  statistics.groups = context.template allocate<M>(groups, width);
  if constexpr (Sequences) {
    GRAFT_CHECK(tokens % pass.positions == 0 && tokens / pass.positions % groups == 0,
                "routing: a balancer looks at sequences: expected whole sequences in each balance group, got ", tokens,
                " tokens of ", pass.positions, " positions in ", groups, " groups");
    statistics.sequences = context.template allocate<M>(tokens / pass.positions, width);
  }
  if constexpr (Step) statistics.step = context.template allocate<M>(index_t{1}, width);
  statistics.columns = columns;
  statistics.slots = slots;
  statistics.tokens = tokens;
  statistics.choices = choices;
  return statistics;
}

// Fills the tables from the sums of chunks and adds to pass.load.
template <class Context, class M>
void summarise_statistics(Context& context, const routing_pass<M, typename Context::space>& pass,
                          const routing_statistics<M, typename Context::space>& statistics,
                          std::type_identity_t<view<const M, 2, typename Context::space>> partial) {
  using space = typename Context::space;
  const auto fill = [&](const view<M, 2, space>& table) {
    launch_rows(
        context, table.extent(0), table.extent(1),
        detail::statistics_row<M, space>{table, partial, statistics.columns, partial.extent(0) / table.extent(0)});
  };
  fill(statistics.groups);
  if (statistics.sequences.data != nullptr) fill(statistics.sequences);
  launch_rows(context, 1, statistics.groups.size(), detail::load_row<M, space>{statistics, pass.load});
}

// loss[0] += the balancers' losses, each the mean over its sets of tokens, sets of padding left out. An absent loss:
// nothing.
template <class Context, Balancer B, class M>
void add_balance_loss(Context& context, const B& balancer,
                      const routing_statistics<M, typename Context::space>& statistics,
                      std::type_identity_t<view<M, 1, typename Context::space>> loss) {
  if (loss.data == nullptr) return;
  launch_rows(context, 1, statistics.groups.size(),
              detail::balance_loss_row<B, M, typename Context::space>{balancer, statistics, loss});
}

// Once after each optimizer step: the balancer moves a layer's selection bias (E) by the load of the whole step.
template <class Context, Balancer B, class M>
void end_balance_step(Context& context, const B& balancer, view<M, 1, typename Context::space> selection_bias,
                      std::type_identity_t<view<const M, 1, typename Context::space>> load) {
  if constexpr (detail::keeps_selection_bias<B>)
    launch_rows(context, 1, selection_bias.extent(0),
                detail::end_step_row<B, M, typename Context::space>{balancer, selection_bias, load});
}

}  // namespace graft
