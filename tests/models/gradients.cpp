// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Gradients of whole models by central differences in double precision, elements of every tensor.

#include "catch.hpp"

#include <string>
#include <vector>

#include "model_gradients.hpp"

namespace gradients_tests {

using namespace graft;
using namespace graft::test;

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
  const std::vector<double> counts = all_counts(model.metrics().load);
  CHECK(counts == std::vector<double>{12, 12, 0, 12, 12, 0});
  for (const tensor_entry& entry : model.layout().tensors) {
    bool any = false;
    for (index_t i = 0; i < entry.size(); ++i) any = any || model.parameters().gradients()[entry.offset + i] != 0;
    INFO(entry.name);
    CHECK(any == (entry.expert != 2));
  }
}

}  // namespace gradients_tests
