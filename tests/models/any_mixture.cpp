// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// A mixture chosen at run time is the mixture chosen when compiling: same names, same bits.

#include "catch.hpp"

#include <string>
#include <vector>

#include <graft/layers/any_mixture.hpp>
#include <graft/models/counts.hpp>

#include "model_check.hpp"

namespace any_mixture_tests {

using namespace graft;
using namespace graft::test;

namespace {

using exact = compute<fp64, cpu>;
using narrow = compute<bf16, cpu>;

template <class Model>
std::vector<double> step(Model& model, const token_batch& batch) {
  using M = typename Model::M;
  model.parameters().set_trainable({});
  model.clear_metrics();
  model.forward_backward(batch.input(), batch.target(), {.token_scale = 0.1, .balance_groups = 2});
  const pass_metrics metrics = model.metrics();
  std::vector<double> all{metrics.loss_sum, metrics.auxiliary_sum};
  const std::vector<double> counts = all_counts(metrics.load);
  all.insert(all.end(), counts.begin(), counts.end());
  const auto gradients = model.parameters().gradients();
  for (index_t i = 0; i < gradients.extent(0); ++i) all.push_back(static_cast<double>(M(gradients[i])));
  return all;
}

}  // namespace

TEMPLATE_TEST_CASE("any_mixture gives the bits of what it holds", "[models]", exact, narrow) {
  context<cpu> ctx({.threads = 2});
  const token_batch batch(4, 6, 11);
  mixture_of<2> own;
  own.balancer.balancers.first.coefficient = 0.25;
  transformer<mixture_of<2>, TestType> typed(ctx, small_shape(3), own);
  transformer<any_mixture<TestType>, TestType> any(ctx, small_shape(3), any_mixture<TestType>(own));
  randomize(typed, 1);
  randomize(any, 1);

  REQUIRE(any.layout().tensors.size() == typed.layout().tensors.size());
  CHECK(any.layout().size == typed.layout().size);
  for (std::size_t i = 0; i < typed.layout().tensors.size(); ++i) {
    CHECK(any.layout().tensors[i].name == typed.layout().tensors[i].name);
    CHECK(any.layout().tensors[i].offset == typed.layout().tensors[i].offset);
    CHECK(any.layout().tensors[i].kind == typed.layout().tensors[i].kind);
  }
  CHECK(step(any, batch) == step(typed, batch));
  CHECK(any_mixture<TestType>::name_of(any.mixture()) == mixture_of<2>::name_of(own));
  CHECK(active_parameter_count(small_shape(3), any.mixture()) == active_parameter_count(small_shape(3), own));
}

TEST_CASE("any_mixture: options by name, copies of their own", "[models]") {
  any_mixture<exact> first(mixture_of<2>{});
  any_mixture<exact> second = first;
  second.set_option("balancer.switch_loss.coefficient", 0.5);
  const auto coefficient = [](const any_mixture<exact>& mixture) {
    for (const auto& [name, value] : mixture.options())
      if (name == "balancer.switch_loss.coefficient") return value;
    return -1.0;
  };
  CHECK(coefficient(first) == switch_loss{}.coefficient);
  CHECK(coefficient(second) == 0.5);
  CHECK_THROWS_WITH(second.set_option("balancer.switch_loss.coeficient", 0.5),
                    Catch::Contains("expected one of the options router.gate.stddev, router.gate.jitter") &&
                        Catch::Contains("got balancer.switch_loss.coeficient"));
}

}  // namespace any_mixture_tests
