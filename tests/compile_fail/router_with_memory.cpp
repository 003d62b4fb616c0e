// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::check_router: the router is not trivially copyable. Keep plain numbers in it, it travels to the
// device.

#include <vector>

#include <graft/policies/router/top_k.hpp>

struct with_numbers : graft::top_k<1> {
  double temperature = 1;
};
static_assert(graft::check_router<with_numbers>());

struct with_memory : graft::top_k<1> {
  std::vector<double> biases;
};

#ifdef GRAFT_MUST_FAIL
static_assert(graft::check_router<with_memory>());
#endif
