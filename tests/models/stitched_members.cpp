// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Stitched models whose members are mixtures or have QK-norm, and stitches in bf16.

#include "catch.hpp"

#include <string>
#include <vector>

#include "model_gradients.hpp"
#include "stitched_check.hpp"

namespace stitched_members_tests {

using namespace graft;
using namespace graft::test;

namespace {

using moe = transformer<mixture_of<2>, compute<fp64, cpu>>;

}  // namespace

TEST_CASE("stitched: gradients through frozen mixtures and frozen QK-norms", "[models]") {
  context<cpu> ctx({.threads = 1});
  transformer_shape shape = stitched_shape(8, 2);
  shape.experts = 3;
  shape.qk_norm = true;
  std::vector<std::shared_ptr<moe>> members;
  for (std::uint64_t i = 0; i < 2; ++i) {
    members.push_back(std::make_shared<moe>(ctx, shape));
    randomize(*members.back(), 1 + i);
  }
  stitched_transformer<hub_and_spokes, compute<fp64, cpu>, moe> model(ctx, members, hub_and_spokes{}, {.stitches = 2});
  randomize(model, 5);
  CHECK(model_mismatch(model) == "");
  CHECK(model.metrics().auxiliary_sum == 0);  // members' balancers are at rest
  const token_batch batch(2, 6, 11);
  stitched_transformer<hub_and_spokes, compute<fp64, cpu>, moe> same(ctx, {members[1], members[1]});
  same.initialize();
  CHECK(same_bits(logits_of(same, batch), logits_of(*members[1], batch)));
}

TEST_CASE("stitched: in bf16 models that agree are the hub, and stitches learn", "[models]") {
  using stitched = stitched_of<bf16, hub_and_spokes>;
  context<cpu> ctx({.threads = 2});
  const token_batch batch(4, 8, 11);
  const auto members = random_members<stitched::member_type>(ctx, {8, 8, 8});
  stitched same(ctx, {members[0], members[0], members[0]});
  same.initialize();
  // A product with the identity is exact, and so is a sum whose weights multiply differences of zero.
  CHECK(same_bits(logits_of(same, batch), logits_of(*members[0], batch)));

  stitched model(ctx, members, hub_and_spokes{}, {.dropout = 0});
  model.initialize();
  model.parameters().set_trainable({});
  const auto loss = [&] {
    model.clear_metrics();
    model.forward_backward(batch.input(), batch.target(), {.token_scale = 1.0 / 31});
    return model.metrics().loss_sum / 31;
  };
  const double before = loss();
  const auto master = model.parameters().master(), gradients = model.parameters().gradients();
  double square = 0;
  for (index_t i = 0; i < gradients.extent(0); ++i) square += double(gradients[i]) * double(gradients[i]);
  REQUIRE(square > 0);
  // Down the gradient by a step that should lower the loss by 0.05.
  for (index_t i = 0; i < gradients.extent(0); ++i) master[i] -= static_cast<float>(0.05 / square) * gradients[i];
  model.parameters().refresh(ctx);
  CHECK(loss() < before);
}

}  // namespace stitched_members_tests
