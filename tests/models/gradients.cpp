// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Gradients of whole models by central differences in double precision, elements of every tensor.

#include "catch.hpp"

#include <string>
#include <vector>

#include "gradient_check.hpp"
#include "model_check.hpp"

using namespace graft;
using namespace graft::test;

namespace {

// token_scale * sum of cross entropies + auxiliary_scale * balancers' losses against what forward_backward adds to the
// gradients.
template <class Model>
std::string model_mismatch(Model& model, index_t groups = 1) {
  const token_batch batch(2, 6, model.shape().vocabulary);
  const pass_options options{.token_scale = 1.0 / static_cast<double>(batch.target_count()),
                             .auxiliary_scale = 0.75,
                             .balance_groups = groups};
  model.parameters().set_trainable({});
  const auto gradients = model.parameters().gradients();
  const auto run = [&] {
    model.clear_metrics();
    model.forward_backward(batch.input(), batch.target(), options);
    const pass_metrics metrics = model.metrics();
    return options.token_scale * metrics.loss_sum + options.auxiliary_scale * metrics.auxiliary_sum;
  };
  for (index_t i = 0; i < gradients.extent(0); ++i) gradients[i] = 0.5;  // gradients are added
  run();

  // Up to eight elements of every tensor, spread over it.
  std::vector<double> x, wanted;
  std::vector<index_t> places;
  std::vector<std::string> names;
  for (const tensor_entry& entry : model.layout().tensors) {
    const index_t step = entry.size() / 8 + 1;
    for (index_t i = 0; i < entry.size(); i += step) {
      places.push_back(entry.offset + i);
      names.push_back(entry.name + "[" + std::to_string(i) + "]");
      x.push_back(model.parameters().master()[places.back()]);
      wanted.push_back(gradients[places.back()] - 0.5);
    }
  }
  gradient_options check;
  check.name = [&](std::size_t i) { return names[i]; };
  return gradient_mismatch(
      [&] {
        for (std::size_t i = 0; i < x.size(); ++i) model.parameters().master()[places[i]] = x[i];
        return run();
      },
      x, wanted, check);
}

}  // namespace

TEST_CASE("models: dense transformer gradients by central differences", "[models]") {
  const bool tied = GENERATE(false, true), qk_norm = GENERATE(false, true);
  CAPTURE(tied, qk_norm);
  transformer_shape shape = small_shape();
  shape.tied = tied;
  shape.qk_norm = qk_norm;
  context<cpu> ctx({.threads = 1});
  dense_transformer<compute<fp64, cpu>> model(ctx, shape);
  randomize(model, 1);
  CHECK(model_mismatch(model) == "");
}

TEMPLATE_TEST_CASE("models: mixture transformer gradients by central differences", "[models]", mixture_of<1>,
                   mixture_of<2>, mixture_of<3>) {
  context<cpu> ctx({.threads = 1});
  const index_t experts = GENERATE(1, 3);
  if (experts < TestType::slots) return;
  CAPTURE(TestType::slots, experts);
  TestType policies;
  policies.balancer = {.balancers = {switch_loss{.coefficient = 0.5}, {z_loss{.coefficient = 0.25}}}};
  transformer_shape shape = small_shape(experts);
  shape.qk_norm = experts == 3;
  transformer<TestType, compute<fp64, cpu>> model(ctx, shape, policies);
  randomize(model, 2);
  CHECK(model_mismatch(model, 2) == "");
}

TEST_CASE("models: gradients of a mixture one of whose experts has no token", "[models]") {
  context<cpu> ctx({.threads = 1});
  transformer<mixture_of<2>, compute<fp64, cpu>> model(ctx, small_shape(3));
  randomize(model, 3);
  // Equal rows of the gate tie, and ties go to the lower index: expert 2 gets nothing.
  for (const char* name :
       {"model.layers.0.block_sparse_moe.gate.weight", "model.layers.1.block_sparse_moe.gate.weight"}) {
    double* gate = model.parameters().master().data + model.layout().find(name)->offset;
    for (index_t i = 0; i < 24; ++i) gate[i] = i < 16 ? gate[i % 8] : 0;
    for (index_t i = 0; i < 8; ++i) gate[16 + i] = gate[i];
  }
  const token_batch batch(2, 6, 11);
  model.parameters().set_trainable({});
  model.forward_backward(batch.input(), batch.target(), {.token_scale = 0.1});
  const std::vector<double> counts = model.metrics().expert_counts;
  CHECK(counts == std::vector<double>{12, 12, 0, 12, 12, 0});
  for (const tensor_entry& entry : model.layout().tensors) {
    bool any = false;
    for (index_t i = 0; i < entry.size(); ++i) any = any || model.parameters().gradients()[entry.offset + i] != 0;
    INFO(entry.name);
    CHECK(any == (entry.expert != 2));
  }
}
