// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The first third of a row router: from logits to scores. A score is evaluated where it is needed, so that no row of
// scores is stored. A row of scores may have order(i): something cheaper or finer that sorts experts as s(i) does.

#include <cmath>
#include <cstdint>
#include <tuple>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>
#include <graft/core/math.hpp>
#include <graft/policies/options.hpp>
#include <graft/policies/router/routing_pass.hpp>

namespace graft {

namespace detail {

// The gradient to the score of expert i, from those to the scores of the selected: 0 where it was not selected.
template <int K, class M>
GRAFT_HOST_DEVICE M score_gradient(index_t i, const std::int32_t* selected, const M* d_scores) {
  M gradient = 0;
  for (int k = 0; k < K; ++k) gradient += selected[k] == i ? d_scores[k] : M(0);
  return gradient;
}

// dl_j = scale s_j (ds_j - sum_i s_i ds_i) of s = softmax(scale l + constant). Experts that were not selected receive
// gradient all the same.
template <int K, class Group, class M, class Row>
GRAFT_HOST_DEVICE void softmax_score_backward(Group& group, const Row& score, index_t experts,
                                              const std::int32_t* selected, const M* d_scores, M scale, M* d_logits) {
  M mean = 0;
  for (int k = 0; k < K; ++k)
    if (selected[k] >= 0) mean += score(selected[k]) * d_scores[k];
  group.for_each(
      experts, [&](index_t i) { d_logits[i] = scale * score(i) * (score_gradient<K>(i, selected, d_scores) - mean); });
}

}  // namespace detail

// s_i = l_i
struct logit_score {
  template <class M>
  struct row {
    const M* logits;
    GRAFT_HOST_DEVICE M operator()(index_t i) const { return logits[i]; }
  };

  template <class Group, class M>
  GRAFT_HOST_DEVICE row<M> prepare(Group&, const routing_token<M>&, const M* logits, index_t) const {
    return {logits};
  }

  // dl_i = ds_i
  template <int K, class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group& group, const routing_token<M>&, const row<M>&, index_t experts,
                                  const std::int32_t* selected, const M* d_scores, M* d_logits) const {
    group.for_each(experts, [&](index_t i) { d_logits[i] = detail::score_gradient<K>(i, selected, d_scores); });
  }
};

// s_i = softmax(l)_i over all experts
struct softmax_score {
  template <class M>
  struct row {
    const M* logits;
    M top, inverse_sum;
    GRAFT_HOST_DEVICE M operator()(index_t i) const { return math::exp(logits[i] - top) * inverse_sum; }
    GRAFT_HOST_DEVICE M order(index_t i) const { return logits[i]; }
  };

  template <class Group, class M>
  GRAFT_HOST_DEVICE row<M> prepare(Group& group, const routing_token<M>&, const M* logits, index_t experts) const {
    const M top = group.max(experts, [&](index_t i) { return logits[i]; });
    const M sum = group.sum(experts, [&](index_t i) { return math::exp(logits[i] - top); });
    return {logits, top, M(1) / sum};
  }

  // dl_j = s_j (ds_j - sum_i s_i ds_i)
  template <int K, class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group& group, const routing_token<M>&, const row<M>& score, index_t experts,
                                  const std::int32_t* selected, const M* d_scores, M* d_logits) const {
    detail::softmax_score_backward<K>(group, score, experts, selected, d_scores, M(1), d_logits);
  }
};

// s_i = sigmoid(l_i): every expert for itself.
struct sigmoid_score {
  template <class M>
  struct row {
    const M* logits;
    GRAFT_HOST_DEVICE M operator()(index_t i) const { return math::sigmoid(logits[i]); }
  };

  template <class Group, class M>
  GRAFT_HOST_DEVICE row<M> prepare(Group&, const routing_token<M>&, const M* logits, index_t) const {
    return {logits};
  }

  // dl_i = ds_i s_i (1 - s_i)
  template <int K, class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group& group, const routing_token<M>&, const row<M>& score, index_t experts,
                                  const std::int32_t* selected, const M* d_scores, M* d_logits) const {
    group.for_each(experts, [&](index_t i) {
      const M s = score(i);
      d_logits[i] = detail::score_gradient<K>(i, selected, d_scores) * s * (M(1) - s);
    });
  }
};

// Training: s = softmax((l + G) / tau),  G_i = -log(-log u_i) with u_i uniform in (0, 1),
//           tau = max(floor, exp(-rate step))
// Evaluation: s = softmax(l).
// The largest s is a sample of an expert from softmax(l), whatever tau. The noise is a function of (seed, step, layer,
// token, expert), so that the backward pass draws it again. sampled_evaluation: noise in evaluation too, with tau = 1.
// With rate = 1e-4 and floor = 0.5, tau reaches its floor at step 6932.
// Source: Jang, Gu, Poole, "Categorical reparameterization with Gumbel-Softmax", 2016, arXiv 1611.01144; Maddison,
// Mnih, Teh, "The Concrete distribution", 2016, arXiv 1611.00712.
// Cost: every evaluation of a score draws its noise again: a block of Philox and two logarithms.
struct gumbel_score {
  static constexpr auto options() {
    return std::tuple(option("rate", &gumbel_score::rate), option("floor", &gumbel_score::floor),
                      option("sampled_evaluation", &gumbel_score::sampled_evaluation));
  }

  double rate = 1e-4;
  double floor = 0.5;
  bool sampled_evaluation = false;

  template <class M>
  struct row {
    const M* logits;
    routing_token<M> token;
    bool noisy;
    M inverse_temperature, top, inverse_sum;

    GRAFT_HOST_DEVICE M order(index_t i) const {
      return noisy ? logits[i] + static_cast<M>(noise(token.uniform(i))) : logits[i];
    }
    GRAFT_HOST_DEVICE M operator()(index_t i) const {
      return math::exp(order(i) * inverse_temperature - top) * inverse_sum;
    }
  };

  // tau of a step
  GRAFT_HOST_DEVICE double temperature(index_t step) const {
    const double tau = ::exp(-rate * static_cast<double>(step));
    return tau > floor ? tau : floor;
  }

  template <class Group, class M>
  GRAFT_HOST_DEVICE row<M> prepare(Group& group, const routing_token<M>& token, const M* logits,
                                   index_t experts) const {
    row<M> score{logits, token, token.at.training || sampled_evaluation, M(1), M(0), M(1)};
    if (token.at.training) score.inverse_temperature = static_cast<M>(1.0 / temperature(token.at.step));
    score.top = score.inverse_temperature * group.max(experts, [&](index_t i) { return score.order(i); });
    score.inverse_sum = M(1) / group.sum(experts, [&](index_t i) { return score(i); });
    return score;
  }

  // dl_j = s_j (ds_j - sum_i s_i ds_i) / tau
  template <int K, class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group& group, const routing_token<M>&, const row<M>& score, index_t experts,
                                  const std::int32_t* selected, const M* d_scores, M* d_logits) const {
    detail::softmax_score_backward<K>(group, score, experts, selected, d_scores, score.inverse_temperature, d_logits);
  }

  void check(index_t) const {
    GRAFT_CHECK(rate >= 0 && floor > 0, "gumbel_score: expected rate >= 0 and floor > 0, got rate=", rate,
                ", floor=", floor);
  }

 private:
  // u in (0, 1] in steps of 2^-32 becomes the middle of its step, so that neither logarithm is infinite.
  GRAFT_HOST_DEVICE static double noise(double u) { return -::log(-::log(u - 0x1p-33)); }
};

}  // namespace graft
