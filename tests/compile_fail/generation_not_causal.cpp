// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::transformer: the router or the layout looks at later tokens, which generation does not have

#include <graft/backend/cpu/cpu.hpp>
#include <graft/models/transformer.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/expert_choice.hpp>
#include <graft/policies/router/top_k.hpp>

template <class R>
void next(graft::moe_transformer<R, graft::no_balancer, graft::routed>& model, graft::matrix_view<float> logits,
          graft::matrix_view<const std::int32_t> inputs) {
  model.next_token_logits(logits, inputs);
}

template void next(graft::moe_transformer<graft::top_k<2>, graft::no_balancer, graft::routed>&,
                   graft::matrix_view<float>, graft::matrix_view<const std::int32_t>);

#ifdef GRAFT_MUST_FAIL
template void next(graft::moe_transformer<graft::expert_choice<4>, graft::no_balancer, graft::routed>&,
                   graft::matrix_view<float>, graft::matrix_view<const std::int32_t>);
#endif
