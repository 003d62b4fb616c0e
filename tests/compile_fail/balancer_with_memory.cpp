// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::check_balancer: the balancer is not trivially copyable. Keep plain numbers in it, it travels to the
// device.

#include <vector>

#include <graft/policies/balancer/switch_loss.hpp>

struct with_numbers : graft::switch_loss {
  double temperature = 1;
};
static_assert(graft::check_balancer<with_numbers>());

struct with_memory : graft::switch_loss {
  std::vector<double> history;
};

#ifdef GRAFT_MUST_FAIL
static_assert(graft::check_balancer<with_memory>());
#endif
