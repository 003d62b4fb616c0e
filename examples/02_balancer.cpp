// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// 2. Write a balancer. This one holds the mean scores of the experts together by their coefficient of variation
// (Shazeer et al., "Outrageously large neural networks", 2017, arXiv 1701.06538). The same model trains without it and
// with it.

#include <cstdio>

#include <graft/graft.hpp>

#include "common/counting.hpp"

// loss = coefficient CV(P)^2 = coefficient (E sum_i P_i^2 - 1), P_i the mean score of expert i, sum_i P_i = 1.
struct variation_loss {
  static constexpr graft::balancer_spec spec{.logit_gradients = true};
  static constexpr const char* name = "variation_loss";
  double coefficient = 0.1;

  template <class M>
  GRAFT_HOST_DEVICE M loss(const graft::balance_statistics<M>& tokens) const {
    M sum = 0;
    for (graft::index_t i = 0; i < tokens.columns; ++i) sum += tokens.mean_scores[i] * tokens.mean_scores[i];
    return M(coefficient) * (tokens.choices * sum - M(1));
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_mean_score(const graft::balance_statistics<M>& tokens, graft::index_t i) const {
    return M(2 * coefficient) * tokens.choices * tokens.mean_scores[i];
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_log_sum_exp(M) const {
    return M(0);
  }
};
static_assert(graft::check_balancer<variation_loss>());

template <class Balancer>
void train_and_show() {
  graft::context<graft::cpu> context({.threads = 1});  // a second thread does not pay for a model this small
  graft::moe_transformer<graft::softmax_top_k<1>, Balancer, graft::routed> model(context, examples::counting_shape(4));
  model.initialize(0);
  const graft::step_report last = examples::train_counting(model, 120);
  for (std::size_t block = 0; block < last.load.size(); ++block)
    std::printf("%-14s block %zu: MaxVio %.2f\n", Balancer::name, block, last.load[block].max_violation());
}

int main() {
  train_and_show<graft::no_balancer>();
  train_and_show<variation_loss>();
}
