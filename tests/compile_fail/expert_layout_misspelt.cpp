// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: no static constexpr expert_layout_spec spec.*no static constexpr const char. name.*no experts.const
// transformer_shape&. const returning index_t.*no hidden.const transformer_shape&. const returning index_t

// Every member that is missing, here by a slip of the pen, has its sentence.

#include <graft/policies/expert_layout/routed.hpp>

static_assert(graft::check_expert_layout<graft::routed>());

struct misspelt {
  static constexpr graft::expert_layout_spec specs{};
  static constexpr const char* names = "misspelt";
  int experts(const graft::transformer_shape&) const { return 1; }  // not index_t
  graft::index_t hidden_width(const graft::transformer_shape&) const { return 1; }
};
static_assert(!graft::ExpertLayout<misspelt>);

#ifdef GRAFT_MUST_FAIL
static_assert(graft::check_expert_layout<misspelt>());
#endif
