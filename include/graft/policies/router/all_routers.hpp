// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Every router, and what they are made of.

#include <graft/policies/router/context_router.hpp>
#include <graft/policies/router/ermoe.hpp>
#include <graft/policies/router/expert_choice.hpp>
#include <graft/policies/router/flex_olmo.hpp>
#include <graft/policies/router/group_limited_top_k.hpp>
#include <graft/policies/router/hash_router.hpp>
#include <graft/policies/router/null_top_k.hpp>
#include <graft/policies/router/probabilities.hpp>
#include <graft/policies/router/renormalised_top_k.hpp>
#include <graft/policies/router/router.hpp>
#include <graft/policies/router/routing_pass.hpp>
#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/sample_top_1.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>
#include <graft/policies/router/sigmoid_top_k.hpp>
#include <graft/policies/router/soft.hpp>
#include <graft/policies/router/softmax_top_k.hpp>
#include <graft/policies/router/switch_top_1.hpp>
#include <graft/policies/router/top_k.hpp>
#include <graft/policies/router/weigh.hpp>
