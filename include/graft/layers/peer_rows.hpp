// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The row algorithms of peer_mixture: product-key selection, neurons of one unit, and gradients into large tables.

#include <cmath>
#include <cstdint>

#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/math.hpp>
#include <graft/ops/detail/strip_sums.hpp>
#include <graft/policies/router/routing_pass.hpp>

namespace graft {

// What a neuron does to its input.
enum class peer_activation { gelu, silu, relu };

namespace detail {

constexpr const char* activation_name(peer_activation activation) {
  constexpr const char* names[] = {"gelu", "silu", "relu"};
  return names[static_cast<int>(activation)];
}

GRAFT_HOST_DEVICE inline float normal_cdf(float x) { return 0.5f * (1.0f + ::erff(x * 0.70710678118654752f)); }
GRAFT_HOST_DEVICE inline double normal_cdf(double x) { return 0.5 * (1.0 + ::erf(x * 0.70710678118654752)); }

// gelu: z cdf(z), with the error function. Source: Hendrycks and Gimpel, 2016, arXiv 1606.08415.
template <peer_activation A, class M>
GRAFT_HOST_DEVICE M activate(M z) {
  if constexpr (A == peer_activation::gelu) return z * normal_cdf(z);
  if constexpr (A == peer_activation::silu) return math::silu(z);
  if constexpr (A == peer_activation::relu) return z > M(0) ? z : M(0);
}
template <peer_activation A, class M>
GRAFT_HOST_DEVICE M activation_slope(M z) {
  if constexpr (A == peer_activation::gelu)
    return normal_cdf(z) + z * static_cast<M>(0.39894228040143268) * math::exp(-z * z / M(2));
  if constexpr (A == peer_activation::silu) {
    const M s = math::sigmoid(z);
    return s * (M(1) + z * (M(1) - s));
  }
  if constexpr (A == peer_activation::relu) return z > M(0) ? M(1) : M(0);
}

// The `kept` largest of n scores, largest first, ties to the lower index.
template <int K, class M>
struct peer_ranking {
  M score[K] = {};
  std::int32_t index[K] = {};

  template <class Group>
  GRAFT_HOST_DEVICE void fill(Group& group, const M* scores, index_t n, index_t kept) {
    M last = static_cast<M>(INFINITY);
    index_t place = -1;
    for (index_t k = 0; k < kept; ++k) {
      // What stands behind the last one taken.
      const auto best = group.argmax(n, [&](index_t i) {
        return scores[i] < last || (scores[i] == last && i > place) ? scores[i] : -static_cast<M>(INFINITY);
      });
      last = score[k] = best.value;
      place = best.index;
      index[k] = static_cast<std::int32_t>(place);
    }
  }
};

// For one token and head: the K experts (r, c) of the n x n grid with the largest row_scores[r] + column_scores[c],
// largest first, ties to the lower expert r n + c, and the softmax of their scores.
// Only the K best rows and the K best columns can be part: each of K rows that stand before a row (larger score, or
// equal and lower) makes with the same column an expert that stands before. So the search is among K^2 sums.
template <int K, class M, class Space>
struct peer_select_row {
  view<std::int32_t, 2, Space> selected;  // (T, H K)
  view<M, 2, Space> weights;              // (T, H K)
  view<const M, 2, Space> row_scores;     // (tokens of this launch, H n)
  view<const M, 2, Space> column_scores;  // (tokens of this launch, H n)
  routing_pass<M, Space> pass;
  index_t first_token, heads, side;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const index_t head = row % heads, token = first_token + row / heads;
    std::int32_t* chosen = selected.row(token) + head * K;
    M* weight = weights.row(token) + head * K;
    if (pass.padding(token)) {
      group.for_each(K, [&](index_t k) {
        chosen[k] = -1;
        weight[k] = 0;
      });
      return;
    }
    const index_t kept = K < side ? K : side;
    peer_ranking<K, M> rows, columns;
    rows.fill(group, row_scores.row(row / heads) + head * side, side, kept);
    columns.fill(group, column_scores.row(row / heads) + head * side, side, kept);

    using candidate = indexed_value<M>;
    const candidate none{-static_cast<M>(INFINITY), -1};
    peer_ranking<K, M> best;
    candidate last{static_cast<M>(INFINITY), -1};
    for (int k = 0; k < K; ++k) {
      last = group.reduce(
          kept * kept,
          [&](index_t pair) {
            const index_t r = pair / kept, c = pair % kept;
            const candidate here{rows.score[r] + columns.score[c], rows.index[r] * side + columns.index[c]};
            return here.value < last.value || (here.value == last.value && here.index > last.index) ? here : none;
          },
          [](const candidate& a, const candidate& b) {
            return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
          },
          none);
      best.score[k] = last.value;
      best.index[k] = static_cast<std::int32_t>(last.index);
    }
    const M top = best.score[0];
    M sum = 0;
    for (int k = 0; k < K; ++k) {
      best.score[k] = best.index[k] >= 0 ? math::exp(best.score[k] - top) : M(0);  // no score but NaN: no expert
      sum += best.score[k];
    }
    group.for_each(K, [&](index_t k) {
      chosen[k] = best.index[k];
      weight[k] = sum > M(0) ? best.score[k] / sum : M(0);
    });
  }
};

// z = u_e . x for one slot. An empty slot: 0.
template <class T, class M, class Space>
struct peer_neuron_row {
  view<M, 2, Space> z;                          // (T, slots)
  view<const T, 2, Space> x, u;                 // (T, D), (N, D)
  view<const std::int32_t, 2, Space> selected;  // (T, slots)

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t slot) const {
    const index_t slots = z.extent(1);
    const std::int32_t expert = selected.data[slot];
    const T* left = x.row(slot / slots);
    const T* right = u.row(expert >= 0 ? expert : 0);
    const M dot = group.sum(expert >= 0 ? x.extent(1) : 0,
                            [&](index_t i) { return static_cast<M>(left[i]) * static_cast<M>(right[i]); });
    group.single([&] { z.data[slot] = dot; });
  }
};

// out[t] = sum over the slots of t of weight act(z) v_e
template <peer_activation A, class T, class M, class Space>
struct peer_output_row {
  view<T, 2, Space> out;                        // (T, D)
  view<const T, 2, Space> v;                    // (N, D)
  view<const M, 2, Space> weights, z;           // (T, slots)
  view<const std::int32_t, 2, Space> selected;  // (T, slots)

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    T* target = out.row(token);
    sum_weighted_rows<M>(
        group, out.extent(1), z.extent(1),
        [&](index_t slot) {
          const std::int32_t expert = selected(token, slot);
          if (expert < 0) return weighted_row<T, M>{M(0), nullptr};
          return weighted_row<T, M>{weights(token, slot) * activate<A>(z(token, slot)), v.row(expert)};
        },
        [&](index_t i, M sum) { target[i] = T(sum); });
  }
};

// For one slot, with a = act(z) and d = d_out . v_e:
//   d_weight = a d,   d_z = weight d act'(z),   share = weight a (what d_v_e is d_out times)
template <peer_activation A, class T, class M, class Space>
struct peer_slot_backward_row {
  view<M, 2, Space> d_weights, d_z, share;      // (T, slots)
  view<const T, 2, Space> d_out, v;             // (T, D), (N, D)
  view<const M, 2, Space> weights, z;           // (T, slots)
  view<const std::int32_t, 2, Space> selected;  // (T, slots)

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t slot) const {
    const std::int32_t expert = selected.data[slot];
    const T* upstream = d_out.row(slot / z.extent(1));
    const T* values = v.row(expert >= 0 ? expert : 0);
    const M dot = group.sum(expert >= 0 ? d_out.extent(1) : 0,
                            [&](index_t i) { return static_cast<M>(upstream[i]) * static_cast<M>(values[i]); });
    group.single([&] {
      const M input = z.data[slot], weight = weights.data[slot];
      const M active = activate<A>(input);
      d_weights.data[slot] = active * dot;
      d_z.data[slot] = weight * dot * activation_slope<A>(input);
      share.data[slot] = weight * active;
    });
  }
};

// d_scores = w (d_w - sum w d_w) for the K slots of one token and head, in place.
template <class M, class Space>
struct peer_scores_backward_row {
  view<M, 2, Space> d_weights;      // (T H, K)
  view<const M, 2, Space> weights;  // (T H, K)

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const M* weight = weights.row(row);
    M* gradient = d_weights.row(row);
    const M dot = group.sum(weights.extent(1), [&](index_t k) { return weight[k] * gradient[k]; });
    group.sync();
    group.for_each(weights.extent(1), [&](index_t k) { gradient[k] = weight[k] * (gradient[k] - dot); });
  }
};

// d_x[t] = sum over the slots of t of d_z u_e
template <class T, class M, class Space>
struct peer_input_backward_row {
  view<T, 2, Space> d_x;                        // (T, D)
  view<const T, 2, Space> u;                    // (N, D)
  view<const M, 2, Space> d_z;                  // (T, slots)
  view<const std::int32_t, 2, Space> selected;  // (T, slots)

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    T* target = d_x.row(token);
    sum_weighted_rows<M>(
        group, d_x.extent(1), d_z.extent(1),
        [&](index_t slot) {
          const std::int32_t expert = selected(token, slot);
          return weighted_row<T, M>{d_z(token, slot), expert >= 0 ? u.row(expert) : nullptr};
        },
        [&](index_t i, M sum) { target[i] = T(sum); });
  }
};

// The gradient to the query of one token and head: the keys of its slots, weighted by d_scores.
template <class T, class M, class Space>
struct peer_query_backward_row {
  view<T, 2, Space> d_query;                    // (T H, d)
  view<const T, 2, Space> row_keys;             // (H n, d / 2)
  view<const T, 2, Space> column_keys;          // (H n, d / 2)
  view<const M, 2, Space> d_scores;             // (T H, K)
  view<const std::int32_t, 2, Space> selected;  // (T H, K)
  index_t heads, side;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const index_t half = row_keys.extent(1), first = row % heads * side;
    const auto add = [&](const view<const T, 2, Space>& keys, index_t divisor, T* target) {
      sum_weighted_rows<M>(
          group, half, selected.extent(1),
          [&](index_t k) {
            const index_t expert = selected(row, k);
            if (expert < 0) return weighted_row<T, M>{M(0), nullptr};
            return weighted_row<T, M>{d_scores(row, k), keys.row(first + expert / divisor % side)};
          },
          [&](index_t i, M sum) { target[i] = T(sum); });
    };
    add(row_keys, side, d_query.row(row));
    add(column_keys, 1, d_query.row(row) + half);
  }
};

// Which row of a table of sub-keys (H n) a slot read: head n + expert / divisor mod n; -1 for an empty slot.
template <class Space>
struct peer_key_element {
  view<std::int32_t, 1, Space> keys;            // (T H K)
  view<const std::int32_t, 1, Space> selected;  // (T H K)
  index_t heads, per_head, side, divisor;

  GRAFT_HOST_DEVICE void operator()(index_t slot) const {
    const index_t head = slot / per_head % heads, expert = selected[slot];
    keys[slot] = expert < 0 ? -1 : static_cast<std::int32_t>(head * side + expert / divisor % side);
  }
};

// d_table[r] += sum over the slots that read row r of scale[slot] source[slot / slots_per_row], in the order of slots.
template <class T, class M, class Space>
struct peer_table_backward_row {
  view<M, 2, Space> d_table;
  view<const T, 2, Space> source;
  view<const M, 1, Space> scale;               // (slots)
  view<const std::int32_t, 1, Space> offsets;  // (rows of the table + 1)
  view<const std::int32_t, 1, Space> order;    // (slots)
  index_t slots_per_row;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    M* target = d_table.row(row);
    for (index_t at = offsets[row]; at < offsets[row + 1]; ++at) {
      const index_t slot = order[at];
      const T* values = source.row(slot / slots_per_row);
      const M factor = scale[slot];
      group.for_each(d_table.extent(1), [&](index_t i) { target[i] += factor * static_cast<M>(values[i]); });
    }
  }
};

// load[e] += how many slots chose expert e
template <class M, class Space>
struct peer_load_element {
  view<M, 1, Space> load;
  view<const std::int32_t, 1, Space> offsets;
  GRAFT_HOST_DEVICE void operator()(index_t e) const { load[e] += static_cast<M>(offsets[e + 1] - offsets[e]); }
};

// Of one slot: its share of the entropy of a token's weights, averaged over heads.
template <class M, class Space>
struct peer_entropy {
  view<const M, 1, Space> weights;
  M scale;
  GRAFT_HOST_DEVICE M operator()(index_t slot) const {
    const M weight = weights[slot];
    return weight > M(0) ? -scale * weight * math::log(weight) : M(0);
  }
};

// 1 for a token that is not padding.
template <class M, class Space>
struct routed_token {
  routing_pass<M, Space> pass;
  GRAFT_HOST_DEVICE M operator()(index_t token) const { return pass.padding(token) ? M(0) : M(1); }
};

}  // namespace detail
}  // namespace graft
