// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The probabilities of the experts that balancers look at. Most routers have the softmax of their logits; those whose
// scores are something else say so with a member `probabilities`, an object or a function that returns one:
//
//   choices<M>(E) -> M   what a balancer takes for the number of experts. A column beyond E is the probability of one
//                        of (choices - E) / extra_logits copies; all copies count when probabilities sum to one.
//   prepare(group, const M* logits, index_t experts) -> p with p(i) for column i of E + extra_logits
//   backward(group, p, experts, a, d_logits)    d_logits[i] += sum_j a(j) dp_j/dl_i,   a(j) the gradient to p_j
// p may have log_sum_exp() and d_log_sum_exp(i); without them the z-loss looks at the softmax of the logits.
// all GRAFT_HOST_DEVICE templates on Group and M.

#include <graft/core/host_device.hpp>
#include <graft/core/math.hpp>

namespace graft {

// A softmax that is evaluated where it is needed, and its logsumexp.
template <class M>
struct softmax_row {
  const M* logits;
  M top, inverse_sum;

  GRAFT_HOST_DEVICE M operator()(index_t i) const { return math::exp(logits[i] - top) * inverse_sum; }
  GRAFT_HOST_DEVICE M log_sum_exp() const { return top - math::log(inverse_sum); }
  GRAFT_HOST_DEVICE M d_log_sum_exp(index_t i) const { return (*this)(i); }  // to logit i

  template <class Group>
  GRAFT_HOST_DEVICE static softmax_row over(Group& group, const M* logits, index_t count) {
    const M top = group.max(count, [&](index_t i) { return logits[i]; });
    const M sum = group.sum(count, [&](index_t i) { return math::exp(logits[i] - top); });
    return {logits, top, M(1) / sum};
  }
};

// p = softmax(l)
struct softmax_probabilities {
  template <class M>
  GRAFT_HOST_DEVICE constexpr M choices(index_t experts) const {
    return static_cast<M>(experts);
  }
  template <class Group, class M>
  GRAFT_HOST_DEVICE softmax_row<M> prepare(Group& group, const M* logits, index_t experts) const {
    return softmax_row<M>::over(group, logits, experts);
  }
  // dl_i = p_i (a_i - sum_j a_j p_j)
  template <class Group, class M, class A>
  GRAFT_HOST_DEVICE void backward(Group& group, const softmax_row<M>& p, index_t experts, const A& a,
                                  M* d_logits) const {
    const M mean = group.sum(experts, [&](index_t i) { return a(i) * p(i); });
    group.for_each(experts, [&](index_t i) { d_logits[i] += p(i) * (a(i) - mean); });
  }
};

// p_i = s_i / sum_j s_j,  s = sigmoid(l): DeepSeek-V3's. A sum of zero gives zeros.
struct sigmoid_probabilities {
  template <class M>
  struct row {
    const M* logits;
    M inverse_sum;
    GRAFT_HOST_DEVICE M operator()(index_t i) const { return math::sigmoid(logits[i]) * inverse_sum; }
  };
  template <class M>
  GRAFT_HOST_DEVICE constexpr M choices(index_t experts) const {
    return static_cast<M>(experts);
  }
  template <class Group, class M>
  GRAFT_HOST_DEVICE row<M> prepare(Group& group, const M* logits, index_t experts) const {
    const M sum = group.sum(experts, [&](index_t i) { return math::sigmoid(logits[i]); });
    return {logits, sum > M(0) ? M(1) / sum : M(0)};
  }
  // dl_i = (a_i - sum_j a_j p_j) p_i (1 - s_i)
  template <class Group, class M, class A>
  GRAFT_HOST_DEVICE void backward(Group& group, const row<M>& p, index_t experts, const A& a, M* d_logits) const {
    const M mean = group.sum(experts, [&](index_t i) { return a(i) * p(i); });
    group.for_each(experts,
                   [&](index_t i) { d_logits[i] += (a(i) - mean) * p(i) * (M(1) - math::sigmoid(p.logits[i])); });
  }
};

namespace detail {

template <class R>
constexpr auto probabilities_of(const R& router) {
  if constexpr (requires { router.probabilities(); })
    return router.probabilities();
  else if constexpr (requires { router.probabilities; })
    return router.probabilities;
  else
    return softmax_probabilities{};
}

}  // namespace detail

}  // namespace graft
