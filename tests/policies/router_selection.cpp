// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Routers that select by more than the largest scores keep the laws of routers: with a selection bias, within groups,
// above a null expert.

#include "catch.hpp"

#include <graft/policies/router/group_limited_top_k.hpp>
#include <graft/policies/router/null_top_k.hpp>
#include <graft/policies/router/sigmoid_top_k.hpp>

#include "laws/router_laws.hpp"

namespace router_selection_tests {

using namespace graft;
using namespace graft::test;

TEMPLATE_TEST_CASE("router: sigmoid_top_k keeps the laws", "[policies]", sigmoid_top_k<2>, sigmoid_top_k<8>) {
  router_laws(TestType{});
  TestType scaled{};
  scaled.weigh.scale = 2.5;
  router_laws(scaled);
}

TEMPLATE_TEST_CASE("router: selection within groups keeps the laws", "[policies]", sigmoid_top_k<4>,
                   group_limited_top_k<4>) {
  TestType router{};
  router_laws(router);
  router.select.groups = 4;
  router.select.kept_groups = 2;
  router.weigh.scale = 16;
  router_laws(router, {.experts = {8, 20, 72}, .ties_by_index = false});
  router.select.kept_groups = 3;
  router.select.scores_per_group = 3;  // more than a group of 2 has
  router_laws(router, {.experts = {8, 20, 72}, .ties_by_index = false});
}

TEMPLATE_TEST_CASE("router: null_top_k keeps the laws", "[policies]", null_top_k<1>, null_top_k<3>) {
  for (const double rho : {0.5, 1.0, 0.8, 0.25}) {
    TestType router{};
    router.select.rho = rho;
    CAPTURE(rho);
    router_laws(router);
  }
}

}  // namespace router_selection_tests
