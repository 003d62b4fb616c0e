// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Every router that graft ships keeps the laws of routers, and so do other rows of scores, selections and weights.
// Those with a selection bias, groups or a null expert: router_selection.cpp. That each computes its equation:
// router_equations.cpp.

#include "catch.hpp"

#include <set>
#include <string>
#include <type_traits>

#include <graft/policies/options.hpp>
#include <graft/policies/router/all_routers.hpp>

#include "laws/router_laws.hpp"

namespace router_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <int K>
struct softmax_over_softmax : row_router<softmax_score, select_top<K>, softmax_over_selected> {
  static constexpr const char* name = "softmax_over_softmax";
};
template <int K>
struct logit_top : row_router<logit_score, select_top<K>, selected_score> {
  static constexpr const char* name = "logit_top";
};
template <int K>
struct gumbel_top : row_router<gumbel_score, select_top<K>, renormalised> {
  static constexpr const char* name = "gumbel_top";
};
template <int K>
struct sigmoid_top : row_router<sigmoid_score, select_top<K>, scaled_score> {
  static constexpr const char* name = "sigmoid_top";
};

static_assert(top_k<2>::spec.experts_per_token == 2 && top_k<2>::spec.weights_sum_to_one &&
              top_k<2>::spec.logit_gradients && top_k<2>::spec.causal && !top_k<2>::spec.selection_bias);
static_assert(!softmax_top_k<2>::spec.weights_sum_to_one && renormalised_top_k<2>::spec.weights_sum_to_one);
static_assert(soft<3>::spec.experts_per_token == 3 && soft<3>::spec.weights_sum_to_one);
static_assert(!sample_top_1<1>::spec.empty_slots && sample_top_1<4>::spec.empty_slots &&
              sample_top_1<4>::spec.experts_per_token == 4);
static_assert(sigmoid_top_k<2>::spec.selection_bias && group_limited_top_k<2>::spec.selection_bias);
static_assert(null_top_k<2>::spec.extra_logits == 1 && null_top_k<2>::spec.empty_slots);
static_assert(!hash_router<2>::spec.logits && !hash_router<2>::spec.logit_gradients);
static_assert(RowRouter<sample_top_1<3>> && RowRouter<hash_router<2>> && !Router<int>);

}  // namespace

TEMPLATE_TEST_CASE("router: those with softmax scores keep the laws", "[policies]", top_k<1>, top_k<2>, top_k<5>,
                   softmax_top_k<2>, softmax_top_k<8>, renormalised_top_k<3>, switch_top_1, soft<1>, soft<5>) {
  router_laws(TestType{});
}

TEMPLATE_TEST_CASE("router: other rows of scores and weights keep the laws", "[policies]", softmax_over_softmax<2>,
                   logit_top<2>, gumbel_top<2>, sigmoid_top<2>) {
  router_laws(TestType{});
}

TEMPLATE_TEST_CASE("router: sample_top_1 keeps the laws", "[policies]", sample_top_1<1>, sample_top_1<4>) {
  router_laws(TestType{});
  TestType cold{};
  cold.score.rate = 0.5;  // tau is at its floor
  router_laws(cold);
  TestType sampled{};
  sampled.score.sampled_evaluation = true;
  router_laws(sampled, {.noise_in_evaluation = true});
}

TEMPLATE_TEST_CASE("router: hash_router keeps the laws", "[policies]", hash_router<1>, hash_router<3>) {
  router_laws(TestType{});
  TestType other{};
  other.table = 7;
  router_laws(other);
}

TEST_CASE("router: every router has a name of its own and says what its options are", "[policies]") {
  std::set<std::string> names;
  const auto see = [&](auto router, const std::string& want) {
    CHECK(names.insert(decltype(router)::name).second);
    std::string options;
    for_each_option(router, [&](const std::string& each, auto&) { options += each + " "; });
    CHECK(options == want);
  };
  const std::string gate = "gate.stddev gate.jitter ";
  see(top_k<2>{}, gate);
  see(softmax_top_k<2>{}, gate);
  see(renormalised_top_k<2>{}, gate);
  see(switch_top_1{}, gate);
  see(soft<2>{}, gate);
  see(sample_top_1<2>{}, gate + "score.rate score.floor score.sampled_evaluation ");
  const std::string groups = "select.groups select.kept_groups select.scores_per_group ";
  see(sigmoid_top_k<2>{}, gate + groups + "weigh.scale weigh.epsilon ");
  see(group_limited_top_k<2>{}, gate + groups + "weigh.scale ");
  see(null_top_k<2>{}, gate + "select.rho ");
  see(hash_router<2>{}, "table ");

  sigmoid_top_k<2> router;
  set_option(router, "weigh.scale", 2.5);
  set_option(router, "select.groups", 4);
  CHECK((router.weigh.scale == 2.5 && router.select.groups == 4));
  CHECK_THROWS_WITH(set_option(router, "select.groups", 2.5), Catch::Matchers::Contains("whole number"));
}

// Each names what it expected and what it got.
TEST_CASE("router: options and numbers of experts that do not fit are refused", "[policies]") {
  using Catch::Matchers::Contains;
  CHECK_THROWS_WITH(soft<3>{}.check(4), Contains("slots=3, experts=4"));
  CHECK_NOTHROW(soft<3>{}.check(3));
  CHECK_THROWS_WITH(sample_top_1<3>{}.check(4), Contains("slots=3, experts=4"));
  CHECK_NOTHROW(sample_top_1<1>{}.check(4));
  sample_top_1<1> sample;
  sample.score.floor = 0;
  CHECK_THROWS_WITH(sample.check(4), Contains("floor=0"));
  sigmoid_top_k<4> grouped;
  CHECK_NOTHROW(grouped.check(7));
  grouped.select.groups = 4;
  CHECK_THROWS_WITH(grouped.check(10), Contains("groups=4, experts=10"));
  CHECK_THROWS_WITH(grouped.check(12), Contains("kept_groups=1"));  // 3 experts in a group
  grouped.select.kept_groups = 5;
  CHECK_THROWS_WITH(grouped.check(12), Contains("kept_groups=5"));
  grouped.select.kept_groups = 2;
  CHECK_NOTHROW(grouped.check(12));
  grouped.select.scores_per_group = 9;
  CHECK_THROWS_WITH(grouped.check(12), Contains("scores_per_group=9"));
  grouped.select.scores_per_group = 2;
  grouped.weigh.epsilon = -1;
  CHECK_THROWS_WITH(grouped.check(12), Contains("epsilon=-1"));
  null_top_k<2> null;
  for (const double rho : {0.0, 1.5, -0.5}) {
    null.select.rho = rho;
    CHECK_THROWS_WITH(null.check(8), Contains("0 < rho <= 1"));
  }
}

}  // namespace router_tests
