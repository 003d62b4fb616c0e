// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The second third of a row router: from scores to the selected experts. Everywhere: the largest first, ties to the
// lower index, NaN below everything.

#include <cmath>
#include <cstdint>
#include <tuple>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>
#include <graft/policies/options.hpp>
#include <graft/policies/router/routing_pass.hpp>

namespace graft {

namespace detail {

template <class M>
GRAFT_HOST_DEVICE constexpr M minus_infinity() {
  return -static_cast<M>(INFINITY);
}

template <class Score>
concept has_order = requires(const Score& score, index_t i) {
  score.order(i);
};

// What sorts experts as their scores do.
template <class Score>
GRAFT_HOST_DEVICE auto order_of(const Score& score, index_t i) {
  if constexpr (has_order<Score>)
    return score.order(i);
  else
    return score(i);
}

// The K experts with the largest keys among those that are allowed.
// Requires: at least K are allowed; a slot for which there is none stays empty.
// Cost: K passes over the keys; K is small.
template <int K, class M, class Group, class Key, class Allowed>
GRAFT_HOST_DEVICE void select_largest(Group& group, index_t experts, const Key& key, const Allowed& allowed,
                                      std::int32_t* selected) {
  for (int k = 0; k < K; ++k) {
    const auto open = [&](index_t i) {
      bool result = allowed(i);
      for (int earlier = 0; earlier < k; ++earlier) result = result && selected[earlier] != i;
      return result;
    };
    index_t best = group.argmax(experts, [&](index_t i) { return open(i) ? key(i) : minus_infinity<M>(); }).index;
    // Keys of minus infinity (or NaN) do not stand out from what is not open: slots still hold different experts.
    if (!open(best))
      for (best = 0; best < experts && !open(best);) ++best;
    selected[k] = best < experts ? static_cast<std::int32_t>(best) : -1;
  }
}

}  // namespace detail

// The K largest scores. Requires: K <= number of experts.
template <int K>
struct select_top {
  static constexpr int slots = K;
  static constexpr bool may_leave_empty = false;
  static constexpr bool reads_bias = false;

  template <class M, class Group, class Score>
  GRAFT_HOST_DEVICE void operator()(Group& group, const routing_token<M>&, const Score& score, const M*,
                                    index_t experts, std::int32_t* selected) const {
    detail::select_largest<K, M>(
        group, experts, [&](index_t i) { return detail::order_of(score, i); }, [](index_t) { return true; }, selected);
  }
};

// All E experts, slot k holds expert k.
template <int E>
struct select_all {
  static constexpr int slots = E;
  static constexpr bool may_leave_empty = false;
  static constexpr bool reads_bias = false;

  template <class M, class Group, class Score>
  GRAFT_HOST_DEVICE void operator()(Group&, const routing_token<M>&, const Score&, const M*, index_t experts,
                                    std::int32_t* selected) const {
    for (int k = 0; k < E; ++k) selected[k] = k < experts ? k : -1;
  }

  void check(index_t experts) const {
    GRAFT_CHECK(experts == E, "select_all: expected as many experts as slots, got slots=", E, ", experts=", experts);
  }
};

// The K largest s_i + b_i, where b is the layer's selection bias, or 0. The bias is in nothing but the selection.
// With groups > 1 the experts are cut into `groups` runs of equal length; only experts of kept_groups of them are
// selected, those with the largest sum of their scores_per_group largest s + b (1: their maximum). The experts of other
// groups count as minus infinity, not as 0: s + b may be negative.
// Source: DeepSeek-AI, "DeepSeek-V3", 2024, arXiv 2412.19437, equation 16 and section 2.1.2, node-limited routing
// (groups = 8, kept_groups = 4, scores_per_group = K / kept_groups = 2); "DeepSeek-V2", 2024, arXiv 2405.04434, section
// 2.2.2, takes the maximum (groups = 8, kept_groups = 3, scores_per_group = 1).
template <int K>
struct select_group_limited {
  static constexpr int slots = K;
  static constexpr bool may_leave_empty = false;
  static constexpr bool reads_bias = true;
  static constexpr int most_groups = 64;
  static constexpr int most_scores_per_group = 8;

  static constexpr auto options() {
    return std::tuple(option("groups", &select_group_limited::groups),
                      option("kept_groups", &select_group_limited::kept_groups),
                      option("scores_per_group", &select_group_limited::scores_per_group));
  }

  int groups = 1;
  int kept_groups = 1;
  int scores_per_group = 2;

  template <class M, class Group, class Score>
  GRAFT_HOST_DEVICE void operator()(Group& group, const routing_token<M>& token, const Score& score, const M*,
                                    index_t experts, std::int32_t* selected) const {
    const M* bias = token.selection_bias;
    const auto key = [&](index_t i) { return score(i) + (bias != nullptr ? bias[i] : M(0)); };
    if (kept_groups >= groups) {
      detail::select_largest<K, M>(
          group, experts, key, [](index_t) { return true; }, selected);
      return;
    }
    const auto size = static_cast<std::int32_t>(experts / groups);
    const std::uint64_t kept = keep<M>(group, key, size);
    detail::select_largest<K, M>(
        group, experts, key, [&](index_t i) { return (kept >> (static_cast<std::int32_t>(i) / size) & 1) != 0; },
        selected);
  }

  void check(index_t experts) const {
    GRAFT_CHECK(groups >= 1 && groups <= most_groups && experts % groups == 0,
                "select_group_limited: expected a number of groups that divides the experts, at most ", most_groups,
                ", got groups=", groups, ", experts=", experts);
    GRAFT_CHECK(kept_groups >= 1 && kept_groups <= groups && kept_groups * (experts / groups) >= K,
                "select_group_limited: expected kept_groups <= groups that hold ", K,
                " experts, got kept_groups=", kept_groups, ", groups=", groups, ", experts=", experts);
    GRAFT_CHECK(scores_per_group >= 1 && scores_per_group <= most_scores_per_group,
                "select_group_limited: expected 1 <= scores_per_group <= ", most_scores_per_group,
                ", got scores_per_group=", scores_per_group);
  }

 private:
  // The sum of the largest keys of one run of experts. A run that is shorter than scores_per_group is summed whole.
  template <class M, class Key>
  GRAFT_HOST_DEVICE M group_score(const Key& key, index_t first, std::int32_t size) const {
    M largest[most_scores_per_group];
    const int count = scores_per_group < size ? scores_per_group : size;
    for (int j = 0; j < count; ++j) largest[j] = detail::minus_infinity<M>();
    for (index_t i = first; i < first + size; ++i) {
      M value = key(i);
      for (int j = 0; j < count; ++j) {
        if (!(value > largest[j])) continue;
        const M smaller = largest[j];
        largest[j] = value;
        value = smaller;
      }
    }
    M sum = 0;
    for (int j = 0; j < count; ++j) sum += largest[j];
    return sum;
  }

  // The kept groups, a bit for each.
  template <class M, class Group, class Key>
  GRAFT_HOST_DEVICE std::uint64_t keep(Group& group, const Key& key, std::int32_t size) const {
    std::uint64_t kept = 0;
    for (int n = 0; n < kept_groups; ++n) {
      const auto open = [&](index_t g) { return (kept >> g & 1) == 0; };
      const auto value = [&](index_t g) {
        return open(g) ? group_score<M>(key, g * size, size) : detail::minus_infinity<M>();
      };
      index_t best = group.argmax(groups, value).index;
      if (!open(best))
        for (best = 0; !open(best);) ++best;
      kept |= std::uint64_t{1} << best;
    }
    return kept;
  }
};

// How many copies of the null expert make the share rho of all slots real when load is even: M = N (1 - rho) / rho,
// rounded to a whole number.
GRAFT_HOST_DEVICE constexpr index_t null_copies(double rho, index_t experts) {
  return static_cast<index_t>(static_cast<double>(experts) * (1.0 - rho) / rho + 0.5);
}

// The experts among the K largest of N logits and M copies of the null logit, which comes after them in memory. The
// copies tie, so none is made: of the K largest logits those stay that are not below the null logit, and the first K -
// M in any case. A tie with the null logit goes to the expert. Slots of the null expert are empty and come last.
template <int K>
struct select_above_null {
  static constexpr int slots = K;
  static constexpr bool may_leave_empty = true;
  static constexpr bool reads_bias = false;

  static constexpr auto options() { return std::tuple(option("rho", &select_above_null::rho)); }

  double rho = 0.5;  // share of the slots that hold an expert when load is even

  template <class M, class Group, class Score>
  GRAFT_HOST_DEVICE void operator()(Group& group, const routing_token<M>&, const Score&, const M* logits,
                                    index_t experts, std::int32_t* selected) const {
    detail::select_largest<K, M>(
        group, experts, [&](index_t i) { return logits[i]; }, [](index_t) { return true; }, selected);
    const index_t copies = null_copies(rho, experts);
    for (int k = 0; k < K; ++k)
      if (k + copies >= K && selected[k] >= 0 && !(logits[selected[k]] >= logits[experts])) selected[k] = -1;
  }

  void check(index_t) const {
    GRAFT_CHECK(rho > 0 && rho <= 1, "select_above_null: expected 0 < rho <= 1, got rho=", rho);
  }
};

}  // namespace graft
