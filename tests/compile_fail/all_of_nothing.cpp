// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::all: no balancer given. Use no_balancer for none.

#include <graft/policies/balancer/all.hpp>

graft::all<graft::no_balancer> allowed;

#ifdef GRAFT_MUST_FAIL
graft::all<> refused;
#endif
