// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The second third of a row router: from scores to the selected experts.

#include <cmath>
#include <cstdint>

#include <graft/core/host_device.hpp>

namespace graft {

// The K largest scores, largest first; ties go to the lower index. Requires: K <= number of experts.
// Cost: K passes over the scores; K is small.
template <int K>
struct select_top {
  static constexpr int slots = K;

  template <class M, class Group, class Score>
  GRAFT_HOST_DEVICE void operator()(Group& group, const Score& score, index_t experts, std::int32_t* selected) const {
    for (int k = 0; k < K; ++k) {
      const auto taken = [&](index_t i) {
        bool found = false;
        for (int earlier = 0; earlier < k; ++earlier) found = found || selected[earlier] == i;
        return found;
      };
      index_t best = group.argmax(experts, [&](index_t i) { return taken(i) ? lowest<M>() : score(i); }).index;
      // Scores of minus infinity (or NaN) do not stand out from what is taken: slots still hold different experts.
      if (taken(best))
        for (best = 0; taken(best);) ++best;
      selected[k] = static_cast<std::int32_t>(best);
    }
  }

 private:
  template <class M>
  GRAFT_HOST_DEVICE static constexpr M lowest() {
    return -static_cast<M>(INFINITY);
  }
};

}  // namespace graft
