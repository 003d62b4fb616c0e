// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// hash_router<K>: experts by a fixed hash of the token, without a gate.

#include <cstdint>
#include <tuple>

#include <graft/core/host_device.hpp>
#include <graft/core/philox.hpp>
#include <graft/policies/options.hpp>
#include <graft/policies/router/router.hpp>

namespace graft {

// K different experts, uniform over all sets of K, by a hash of (table, layer, token id); g = 1 / K. Nothing is learnt
// and nothing changes during a run: the hash depends neither on the seed of the run nor on the step.
// Requires: passes with token ids. Without them all tokens have id 0 and go to the same experts.
// Source: Roller et al., "Hash layers for large sparse models", 2021, arXiv 2106.04426, "random hash".
template <int K>
struct hash_router {
  static_assert(K >= 1 && K <= 256, "graft::hash_router: K is not in 1 to 256. A token needs at least one expert.");
  static constexpr const char* name = "hash_router";
  static constexpr router_spec spec{
      .experts_per_token = K, .weights_sum_to_one = true, .logits = false, .logit_gradients = false};

  static constexpr auto options() { return std::tuple(option("table", &hash_router::table)); }

  index_t table = 0;  // another number is another hash

  template <class Group, class M>
  GRAFT_HOST_DEVICE void forward(Group&, const routing_token<M>& token, const M*, index_t experts,
                                 std::int32_t* selected, M* weights) const {
    const random_source source{static_cast<std::uint64_t>(table), random_stream::router};
    // Apart from the noise of routers, whose major numbers are steps.
    const auto major = std::uint64_t{1} << 55 | static_cast<std::uint64_t>(token.layer);
    std::int32_t taken[K];  // ascending
    for (int k = 0; k < K; ++k) {
      const auto minor =
          static_cast<std::uint64_t>(static_cast<std::uint32_t>(token.id)) << 8 | static_cast<std::uint64_t>(k);
      auto expert = static_cast<std::int32_t>(source.below(static_cast<std::uint64_t>(experts - k), major, minor));
      int at = 0;  // expert is the number among those not taken
      for (; at < k && expert >= taken[at]; ++at) ++expert;
      for (int j = k; j > at; --j) taken[j] = taken[j - 1];
      taken[at] = expert;
      selected[k] = expert;
      weights[k] = M(1) / M(K);
    }
  }

  template <class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group&, const routing_token<M>&, const M*, index_t, const std::int32_t*, const M*,
                                  const M*, M*) const {}
};

}  // namespace graft
