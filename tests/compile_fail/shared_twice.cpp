// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::shared_routed: the layout has a shared expert already. Add up their widths instead

// A layer has one shared expert, however wide.

#include <graft/policies/expert_layout/shared_routed.hpp>

using once = graft::shared_routed<>;
static_assert(once::spec.shared == graft::shared_expert_mode::sum);

#ifdef GRAFT_MUST_FAIL
static_assert(graft::shared_routed<graft::shared_expert_mode::averaged, once>::spec.dropless);
#endif
