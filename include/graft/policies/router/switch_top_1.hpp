// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// switch_top_1: the router of the Switch Transformer.

#include <graft/policies/router/row_router.hpp>
#include <graft/policies/router/score.hpp>
#include <graft/policies/router/select.hpp>
#include <graft/policies/router/weigh.hpp>

namespace graft {

// s = softmax(l),  g_m = s_m for m = argmax l. The weight is not renormalised: renormalised it would be 1, and the
// router would receive no gradient from the language-model loss.
// Source: Fedus, Zoph, Shazeer, "Switch Transformers", 2021, arXiv 2101.03961, equations 1 and 2. Its jitter is an
// option of the gate, its capacity one of the layout.
struct switch_top_1 : row_router<softmax_score, select_top<1>, selected_score> {
  static constexpr const char* name = "switch_top_1";
};

}  // namespace graft
