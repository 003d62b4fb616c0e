// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// One stitch layer: the states of several models at the same depth are read into each other, by projections and by
// gates with a value for each channel. What is read into what is a stitch_step
// (policies/stitch_topology/stitch_plan.hpp). Source: Zhang et al., "BTS: Harmonizing specialized experts into a
// generalist LLM", 2025, arXiv 2502.00075, section 3.

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include <graft/backend/arena.hpp>
#include <graft/layers/compute.hpp>
#include <graft/layers/stitch_rows.hpp>
#include <graft/policies/stitch_topology/stitch_plan.hpp>

namespace graft {

// gate[t][j] (D_t, D_g): the logits of how much of member j goes into member t, from the state of the member g that
// gates the merge. proj[t][j] (D_t, D_j): member j's state as member t reads it. No biases. What a step has no use for
// is absent. In a checkpoint: "gate.0.2.weight", "proj.0.2.weight".
template <class Leaf>
struct stitch_parameters {
  using table = std::vector<std::vector<Leaf>>;
  BOOST_HANA_DEFINE_STRUCT(stitch_parameters, (table, gate), (table, proj));
};

// Projections start as the identity and gates at zero: a softmax then gives the mean of all, a sigmoid one half of
// each. widths: D of each member. The idle block of the gate, where the step has one, is neither trained nor decayed.
constexpr stitch_parameters<parameter_spec> stitch_specs(const stitch_step& step, const std::vector<index_t>& widths) {
  stitch_parameters<parameter_spec> specs;
  specs.gate.resize(widths.size());
  for (auto& row : specs.gate) row.resize(widths.size());
  specs.proj = specs.gate;
  const auto gate = [&](index_t into, index_t from, index_t by) {
    specs.gate[static_cast<std::size_t>(into)][static_cast<std::size_t>(from)] =
        parameter_spec::matrix(role::stitch, widths[static_cast<std::size_t>(into)],
                               widths[static_cast<std::size_t>(by)], initializer::zeros());
  };
  for (const stitch_merge& merge : step.merges) {
    if (merge.gate == stitch_gate::softmax) gate(merge.into, merge.into, merge.gated_by);
    for (const index_t source : merge.from) {
      gate(merge.into, source, merge.gated_by);
      specs.proj[static_cast<std::size_t>(merge.into)][static_cast<std::size_t>(source)] =
          parameter_spec::matrix(role::stitch, widths[static_cast<std::size_t>(merge.into)],
                                 widths[static_cast<std::size_t>(source)], initializer::identity());
    }
  }
  if (step.idle_gate >= 0) {
    gate(step.idle_gate, step.idle_gate, step.idle_gate);
    auto& idle = specs.gate[static_cast<std::size_t>(step.idle_gate)][static_cast<std::size_t>(step.idle_gate)];
    idle.optimized = false;
    idle.decay = false;
  }
  return specs;
}

// A step as it is run: where the logits of every gate lie in a row of all of them.
struct stitch_layout {
  struct block {
    index_t into, from, gated_by;
    index_t column, rows;  // logits [column, column + rows)
  };
  stitch_step step;
  std::vector<block> blocks;  // by (into, from): blocks of one gate are neighbours, here and in the arena
  index_t columns = 0;

  stitch_layout() = default;
  stitch_layout(const stitch_step& of, const std::vector<index_t>& widths) : step(of) {
    const auto members = static_cast<index_t>(widths.size());
    for (index_t into = 0; into < members; ++into)
      for (index_t from = 0; from < members; ++from)
        for (const stitch_merge& merge : step.merges) {
          const bool own = from == into && merge.gate == stitch_gate::softmax;
          const bool source = std::find(merge.from.begin(), merge.from.end(), from) != merge.from.end();
          if (merge.into != into || !(own || source)) continue;
          const index_t rows = widths[static_cast<std::size_t>(into)];
          blocks.push_back({into, from, merge.gated_by, columns, rows});
          columns += rows;
        }
  }
  // -1: there is none.
  index_t column_of(index_t into, index_t from) const {
    for (const block& each : blocks)
      if (each.into == into && each.from == from) return each.column;
    return -1;
  }
};

// Where a stitch stands and how it is run.
template <class Compute>
struct stitch_pass {
  typename Compute::context_type& context;
  pass_position at;
  index_t number = 0;      // of the stitch in the model, from 0: part of the dropout's counter
  double dropout = 0;      // of gate logits, while training
  bool carry_raw = false;  // sources of a merge that rewrites them go on as they were
};

// What the forward pass keeps for the backward pass, in the workspace. The vectors keep their memory from pass to pass.
template <class Compute>
struct stitch_saved {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using space = typename Compute::space;
  std::vector<view<T, 2, space>> states;                  // in front of the stitch, by member
  std::vector<std::vector<view<T, 2, space>>> projected;  // (T, D_into) by merge and source
  view<M, 2, space> logits;                               // (T, columns) before dropout
  std::vector<view<T, 2, space>> written;                 // behind the stitch, where nothing is kept
};

namespace detail {

// Calls visit(gated_by, column, weight (rows, D_g)) for every gate; blocks that are neighbours in memory go together,
// so that the gate of the paper, d -> d (1 + n), is one product.
template <class Leaf, class Visit>
void for_each_gate(const stitch_layout& layout, const std::vector<std::vector<Leaf>>& gates, const Visit& visit) {
  const auto leaf_of = [&](const stitch_layout::block& block) -> const Leaf& {
    return gates[static_cast<std::size_t>(block.into)][static_cast<std::size_t>(block.from)];
  };
  for (std::size_t i = 0; i < layout.blocks.size();) {
    const stitch_layout::block& first = layout.blocks[i];
    auto matrix = leaf_of(first).matrix();
    const bool present = leaf_of(first).present();
    for (++i; present && i < layout.blocks.size(); ++i) {
      const Leaf& next = leaf_of(layout.blocks[i]);
      if (layout.blocks[i].gated_by != first.gated_by || next.data != matrix.data + matrix.size()) break;
      matrix.extents[0] += next.rows;
    }
    if (present) visit(first.gated_by, first.column, matrix);
  }
}

template <class Compute>
auto gates_of(const stitch_pass<Compute>& pass, const stitch_layout& layout, std::size_t merge_number,
              const stitch_saved<Compute>& saved) {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using space = typename Compute::space;
  const stitch_merge& merge = layout.step.merges[merge_number];
  const auto members = static_cast<index_t>(saved.states.size());
  // The dropout knows a gate by its members, so that it is the same whichever others run.
  const auto slot_of = [&](index_t from) { return static_cast<unsigned char>(merge.into * members + from); };
  merge_gates<T, M, space> gates;
  gates.logits = saved.logits;
  gates.own = saved.states[static_cast<std::size_t>(merge.into)];
  gates.dropout = gate_dropout::of(pass.at, pass.number, pass.dropout);
  gates.sources.own_column =
      merge.gate == stitch_gate::softmax ? static_cast<int>(layout.column_of(merge.into, merge.into)) : -1;
  gates.sources.own_slot = slot_of(merge.into);
  for (std::size_t j = 0; j < merge.from.size(); ++j) {
    gates.sources.columns[j] = static_cast<int>(layout.column_of(merge.into, merge.from[j]));
    gates.sources.slots[j] = slot_of(merge.from[j]);
    gates.sources.projected[j] = saved.projected[merge_number][j].data;
  }
  gates.sources.count = static_cast<int>(merge.from.size());
  return gates;
}

// How many rows go through a stitch together where nothing is kept: on the host so many that their logits stay in the
// caches between the product that writes them and the pass that reads them, on a device all.
template <class Context>
index_t stitched_rows(const Context& context, const stitch_layout& layout) {
  if constexpr (std::is_same_v<typename Context::space, host_space>) {
    constexpr index_t cached = index_t{1} << 20;  // logits, for each thread
    return std::max<index_t>(1, cached / std::max<index_t>(layout.columns, 1)) * context.threads();
  } else {
    return std::numeric_limits<index_t>::max();
  }
}

// The logits of all gates and the projections of all merges, from saved.states.
template <class Compute>
void stitch_products(const stitch_pass<Compute>& pass, const stitch_layout& layout,
                     const stitch_parameters<typename Compute::weight>& weights, index_t rows,
                     stitch_saved<Compute>& saved) {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  auto& context = pass.context;
  saved.logits = context.template allocate<M>(rows, layout.columns);
  for_each_gate(layout, weights.gate, [&](index_t by, index_t column, const auto& weight) {
    gemm_nt(context, saved.logits.columns(column, column + weight.extent(0)),
            saved.states[static_cast<std::size_t>(by)], weight, accumulate::no);
  });
  saved.projected.resize(layout.step.merges.size());
  for (std::size_t m = 0; m < layout.step.merges.size(); ++m) {
    const stitch_merge& merge = layout.step.merges[m];
    saved.projected[m].resize(merge.from.size());
    for (std::size_t j = 0; j < merge.from.size(); ++j) {
      const auto source = static_cast<std::size_t>(merge.from[j]);
      const auto& weight = weights.proj[static_cast<std::size_t>(merge.into)][source];
      saved.projected[m][j] = context.template allocate<T>(rows, weight.rows);
      gemm_nt(context, saved.projected[m][j], saved.states[source], weight.matrix(), accumulate::no);
    }
  }
}

template <class Compute>
void stitch_merges(const stitch_pass<Compute>& pass, const stitch_layout& layout,
                   std::vector<view<typename Compute::storage, 2, typename Compute::space>>& states,
                   const stitch_saved<Compute>& saved, bool keep) {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using space = typename Compute::space;
  auto& context = pass.context;
  for (std::size_t m = 0; m < layout.step.merges.size(); ++m) {
    const stitch_merge& merge = layout.step.merges[m];
    const auto into = static_cast<std::size_t>(merge.into);
    const index_t rows = states[into].extent(0), width = states[into].extent(1);
    const bool rewrites = merge.rewrites && !pass.carry_raw;
    merge_row<T, M, space> row;
    row.gates = gates_of(pass, layout, m, saved);
    row.out = keep ? context.template allocate<T>(rows, width) : saved.states[into];
    states[into] = row.out;
    for (std::size_t j = 0; rewrites && j < merge.from.size(); ++j) {
      auto& state = states[static_cast<std::size_t>(merge.from[j])];
      if (keep)
        state = saved.projected[m][j];
      else if (state.extent(1) == width)  // of another width, its blocks end here (stitched_transformer checks)
        row.carried[j] = state.data;
    }
    launch_rows(context, rows, width * static_cast<index_t>(merge.from.size() + 1), row);
  }
}

}  // namespace detail

// states by member: h in front of the stitch, replaced by what goes on behind it. For every merge into t, gated by g,
// with p_j = W_proj,tj h_j and z_j = W_gate,tj h_g:
//   softmax   h_t <- g_t h_t + sum_j g_j p_j       g = softmax(dropout(z_t), dropout(z_1) ...), channel by channel
//   sigmoid   h_t <- (1 - g) h_t + g p_1           g = sigmoid(dropout(z_1))
//   sources of a merge that rewrites them:  h_j <- p_j, unless carry_raw
// dropout(z) = 0 with the pass's probability, else z / (1 - probability); only in training.
// Shapes: states (T, D_i), contiguous; of members that no merge names they may be absent. keep: the new states are new
// memory in the caller's workspace scope and saved is for stitch_backward; without, they are written in place.
// Cost: for each merge of m sources m + 1 products for the gates (one where they lie together) and m projections, and
// one pass over the states for gates, sum and what goes on.
template <class Compute>
void stitch_forward(const stitch_pass<Compute>& pass, const stitch_layout& layout,
                    const stitch_parameters<typename Compute::weight>& weights, index_t rows,
                    std::vector<view<typename Compute::storage, 2, typename Compute::space>>& states,
                    stitch_saved<Compute>& saved, bool keep) {
  saved.states = states;
  if (layout.step.merges.empty()) return;
  if (keep) {
    detail::stitch_products(pass, layout, weights, rows, saved);
    detail::stitch_merges(pass, layout, states, saved, true);
    return;
  }
  const index_t piece = detail::stitched_rows(pass.context, layout);
  for (index_t first = 0; first < rows; first += piece) {
    workspace_scope scope(pass.context);
    const index_t count = std::min(piece, rows - first);
    stitch_pass<Compute> part = pass;
    part.at.first_token += first;
    for (std::size_t i = 0; i < states.size(); ++i)
      if (states[i].data != nullptr) saved.states[i] = states[i].rows(first, first + count);
    detail::stitch_products(part, layout, weights, count, saved);
    saved.written = saved.states;  // in place
    detail::stitch_merges(part, layout, saved.written, saved, false);
  }
}

// The gradients to the states of all members, each in memory of its own beside room for another.
template <class Compute>
struct state_gradients {
  using matrix = view<typename Compute::storage, 2, typename Compute::space>;
  std::vector<matrix> now, spare;              // (T, D_i)
  std::vector<char> known;                     // 0: zero, and `now` holds nothing
  std::vector<std::vector<matrix>> projected;  // of a stitch at work; keeps its memory from pass to pass
};

// d in: the gradients to the states behind the stitch; out: to those in front of it, with propagate. Gradients of the
// weights are added where they are present.
//   dz_j = g_j dh_t (p_j - h_t'), h_t' the merged state;  dp_j = g_j dh_t (+ dh_j where the source was rewritten)
//   dW_gate,tj += dz_j^T h_g,  dW_proj,tj += dp_j^T h_j,  dh_j += dp_j W_proj,tj,  dh_g += dz_j W_gate,tj
// Requires: every member that a merge writes has a gradient. Without propagate, d is spent.
template <class Compute>
void stitch_backward(const stitch_pass<Compute>& pass, const stitch_layout& layout,
                     const stitch_parameters<typename Compute::weight>& weights,
                     const stitch_parameters<typename Compute::gradient>& gradients, const stitch_saved<Compute>& saved,
                     state_gradients<Compute>& d, bool propagate) {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using space = typename Compute::space;
  if (layout.step.merges.empty()) return;
  auto& context = pass.context;
  workspace_scope scope(context);
  const index_t rows = saved.logits.extent(0);
  auto d_logits = context.template allocate<T>(rows, layout.columns);
  const auto at = [](index_t member) { return static_cast<std::size_t>(member); };

  // Everything that reads the gradients behind the stitch comes before anything that writes those in front of it. Where
  // a source was rewritten, its gradient becomes dp; `now` of a source that was not known is free to hold it.
  d.projected.resize(std::max(d.projected.size(), layout.step.merges.size()));
  for (std::size_t m = 0; m < layout.step.merges.size(); ++m) {
    const stitch_merge& merge = layout.step.merges[m];
    d.projected[m].resize(std::max(d.projected[m].size(), merge.from.size()));
    GRAFT_CHECK(d.known[at(merge.into)] != 0, "stitch_backward: expected a gradient to member ", merge.into,
                ", which the stitch writes, got none");
    const index_t width = saved.states[at(merge.into)].extent(1);
    const bool rewrites = merge.rewrites && !pass.carry_raw;
    detail::merge_backward_row<T, M, space> row;
    row.d_state = d.now[at(merge.into)];
    row.d_logits = d_logits;
    row.gates = detail::gates_of(pass, layout, m, saved);
    for (std::size_t j = 0; j < merge.from.size(); ++j) {
      row.add[j] = rewrites && d.known[at(merge.from[j])] != 0;
      d.projected[m][j] = row.add[j] ? d.now[at(merge.from[j])] : context.template allocate<T>(rows, width);
      row.d_projected[j] = d.projected[m][j].data;
    }
    launch_rows(context, rows, width * static_cast<index_t>(merge.from.size() + 1), row);
  }

  const auto add_to = [&](index_t member, const auto& d_out, const auto& weight) {
    gemm_nn(context, d.now[at(member)], d_out, weight, d.known[at(member)] ? accumulate::yes : accumulate::no);
    d.known[at(member)] = 1;
  };
  for (std::size_t m = 0; m < layout.step.merges.size(); ++m) {
    const stitch_merge& merge = layout.step.merges[m];
    for (std::size_t j = 0; j < merge.from.size(); ++j) {
      const index_t source = merge.from[j];
      const auto& gradient = gradients.proj[at(merge.into)][at(source)];
      if (gradient.present())
        gemm_tn(context, gradient.matrix(), d.projected[m][j], saved.states[at(source)], accumulate::yes);
      if (!propagate) continue;
      if (merge.rewrites && !pass.carry_raw) {
        std::swap(d.now[at(source)], d.spare[at(source)]);  // dp may lie in it
        d.known[at(source)] = 0;
      }
      add_to(source, d.projected[m][j], weights.proj[at(merge.into)][at(source)].matrix());
    }
  }
  detail::for_each_gate(layout, gradients.gate, [&](index_t by, index_t column, const auto& gradient) {
    gemm_tn(context, gradient, d_logits.columns(column, column + gradient.extent(0)), saved.states[at(by)],
            accumulate::yes);
  });
  if (!propagate) return;
  detail::for_each_gate(layout, weights.gate, [&](index_t by, index_t column, const auto& weight) {
    add_to(by, d_logits.columns(column, column + weight.extent(0)), weight);
  });
}

// means (T, N, N): [t, into, from] is the mean over the channels of how much of member `from` is in member `into`
// behind the stitch, a row that sums to one; zero for members that no merge writes. Without dropout. Requires: saved by
// stitch_forward with keep.
template <class Compute>
void stitch_gate_means(const stitch_pass<Compute>& pass, const stitch_layout& layout,
                       const stitch_saved<Compute>& saved,
                       view<typename Compute::master, 3, typename Compute::space> means) {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using space = typename Compute::space;
  fill_zero(pass.context, means);
  const index_t rows = means.extent(0), members = means.extent(1);
  for (std::size_t m = 0; m < layout.step.merges.size(); ++m) {
    const stitch_merge& merge = layout.step.merges[m];
    detail::merge_gate_mean_row<T, M, space> row;
    row.means = view<M, 2, space>(means.data + merge.into * members, rows, members);
    row.means.strides[0] = members * members;
    row.gates = detail::gates_of(pass, layout, m, saved);
    for (std::size_t j = 0; j < merge.from.size(); ++j) row.members[j] = static_cast<int>(merge.from[j]);
    row.members[merge.from.size()] = static_cast<int>(merge.into);
    launch_rows(pass.context, rows, row.gates.own.extent(1), row);
  }
}

}  // namespace graft
