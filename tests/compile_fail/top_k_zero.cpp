// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::top_k: K is below 1. A token needs at least one expert.

#include <graft/policies/router/top_k.hpp>

graft::top_k<1> allowed;

#ifdef GRAFT_MUST_FAIL
graft::top_k<0> refused;
#endif
