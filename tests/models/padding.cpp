// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Padding (token -1) behind the tokens of a sequence changes nothing: loss, balancers' losses, load and gradients are
// those of the tokens alone.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include <graft/policies/balancer/all_balancers.hpp>

#include "model_check.hpp"

namespace padding_tests {

using namespace graft;
using namespace graft::test;

namespace {

using every_balancer = all<switch_loss, sequence_loss, global_batch_loss, btx_loss, z_loss, dirichlet_prior>;
using routed_model = transformer<mixture<top_k<2>, every_balancer, routed>, compute<fp64, cpu>>;
using dense_model = dense_transformer<compute<fp64, cpu>>;

struct outcome {
  pass_metrics metrics;
  std::vector<double> gradients, losses;
};

template <class Model>
outcome run(Model& model, const token_batch& batch) {
  model.parameters().set_trainable({});
  model.clear_metrics();
  tensor<double> losses(1, batch.sequences * batch.positions, 99);
  model.token_losses(losses.vector(), batch.input(), batch.target());
  model.clear_metrics();
  model.forward_backward(batch.input(), batch.target(), {.token_scale = 0.1, .auxiliary_scale = 0.75});
  const auto gradients = model.parameters().gradients();
  return {model.metrics(), {gradients.data, gradients.data + gradients.extent(0)}, losses.values};
}

}  // namespace

TEMPLATE_TEST_CASE("models: a padded batch equals the batch without padding", "[models]", dense_model, routed_model) {
  context<cpu> ctx({.threads = 1});
  transformer_shape shape = small_shape(TestType::mixture_type::present ? 3 : 0);
  shape.qk_norm = true;
  TestType model(ctx, shape);
  if constexpr (TestType::mixture_type::present)
    for_each_option(model.mixture().balancer, [](const std::string& name, auto& value) {
      if (name.ends_with("coefficient")) value = static_cast<std::remove_reference_t<decltype(value)>>(0.5);
    });
  randomize(model, 1);

  // Three sequences of five tokens; padded, four of eight, the second without a token.
  const token_batch plain(3, 5, 11);
  token_batch padded(4, 8, 11);
  std::fill(padded.inputs.begin(), padded.inputs.end(), -1);
  std::fill(padded.targets.begin(), padded.targets.end(), -1);
  std::vector<std::size_t> place;
  for (const std::size_t sequence : {0, 2, 3})
    for (std::size_t t = 0; t < 5; ++t) place.push_back(8 * sequence + t);
  for (std::size_t t = 0; t < place.size(); ++t) {
    padded.inputs[place[t]] = plain.inputs[t];
    padded.targets[place[t]] = plain.targets[t];
  }

  const outcome want = run(model, plain), got = run(model, padded);
  CHECK(want.metrics.loss_sum > 1);
  CHECK(std::abs(got.metrics.loss_sum - want.metrics.loss_sum) <= 1e-12 * want.metrics.loss_sum);
  CHECK(std::abs(got.metrics.auxiliary_sum - want.metrics.auxiliary_sum) <= 1e-12);
  CHECK((want.metrics.auxiliary_sum > 0.1) == TestType::mixture_type::present);
  for (std::size_t layer = 0; layer < want.metrics.load.size(); ++layer) {
    const layer_load &a = got.metrics.load[layer], &b = want.metrics.load[layer];
    CHECK(a.counts == b.counts);
    CHECK(a.tokens == b.tokens);
    CHECK(std::abs(a.entropy_sum - b.entropy_sum) <= 1e-12);
    if (TestType::mixture_type::present) CHECK(b.tokens == 15);
  }
  for (std::size_t t = 0; t < place.size(); ++t) CHECK(std::abs(got.losses[place[t]] - want.losses[t]) <= 1e-12);
  CHECK(std::count(got.losses.begin(), got.losses.end(), 0.0) == 32 - 15 + 1);  // one token has no target
  double largest = 0, apart = 0;
  for (std::size_t i = 0; i < want.gradients.size(); ++i) {
    largest = std::max(largest, std::abs(want.gradients[i]));
    apart = std::max(apart, std::abs(got.gradients[i] - want.gradients[i]));
  }
  CHECK(largest > 0.1);
  CHECK(apart <= 1e-12 * largest);  // sums of 15 terms and 17 zeros, through two blocks

  // What stands in the rows of padding is looked at by nobody: shorter or longer padding is the same.
  token_batch shorter(3, 6, 11);
  std::fill(shorter.inputs.begin(), shorter.inputs.end(), -1);
  std::fill(shorter.targets.begin(), shorter.targets.end(), -1);
  for (std::size_t t = 0; t < place.size(); ++t) {
    shorter.inputs[t / 5 * 6 + t % 5] = plain.inputs[t];
    shorter.targets[t / 5 * 6 + t % 5] = plain.targets[t];
  }
  CHECK(std::abs(run(model, shorter).metrics.loss_sum - want.metrics.loss_sum) <= 1e-12 * want.metrics.loss_sum);
}

}  // namespace padding_tests
