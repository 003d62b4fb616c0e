// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::all: more than one balancer keeps a selection bias.

#include <graft/policies/balancer/all.hpp>
#include <graft/policies/balancer/loss_free_bias.hpp>
#include <graft/policies/balancer/z_loss.hpp>

graft::all<graft::loss_free_bias, graft::z_loss> allowed;

#ifdef GRAFT_MUST_FAIL
graft::all<graft::loss_free_bias, graft::loss_free_bias> refused;
#endif
