// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::transformer: the router.*looks at later tokens, which generation does not have

// A layout that drops by probability lets later tokens take the places of earlier ones: it does not generate.

#include <graft/backend/cpu/cpu.hpp>
#include <graft/models/transformer.hpp>
#include <graft/policies/expert_layout/capacity.hpp>
#include <graft/policies/router/top_k.hpp>

template <graft::drop_by Rule>
using model = graft::moe_transformer<graft::top_k<2>, graft::no_balancer, graft::capacity<graft::routed, Rule>>;

void generate(model<graft::drop_by::position>& m) { m.next_token_logits({}, {}); }

#ifdef GRAFT_MUST_FAIL
void generate(model<graft::drop_by::probability>& m) { m.next_token_logits({}, {}); }
#endif
