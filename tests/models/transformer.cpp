// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// What a model promises beside its gradients: its passes agree with one another, the past does not see the future,
// sequences do not see each other, freezing leaves the rest alone, a second step asks for no memory.

#include "catch.hpp"

#include <cmath>
#include <vector>

#include <graft/models/counts.hpp>

#include "model_check.hpp"

namespace transformer_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <class P>
using dense_of = dense_transformer<compute<P, cpu>>;
template <class P>
using moe_of = transformer<mixture_of<2>, compute<P, cpu>>;

template <class Model>
transformer_shape shape_for() {
  transformer_shape shape = small_shape(Model::mixture_type::present ? 3 : 0);
  shape.qk_norm = true;
  return shape;
}

template <class Model>
tensor<typename Model::M> all_logits(Model& model, const token_batch& batch) {
  tensor<typename Model::M> out(batch.sequences * batch.positions, model.shape().vocabulary);
  model.logits(out.matrix(), batch.input());
  return out;
}

}  // namespace

TEMPLATE_TEST_CASE("models: losses, logits and the training pass agree", "[models]", dense_of<fp64>, moe_of<fp64>,
                   moe_of<fp32>) {
  using M = typename TestType::M;
  context<cpu> ctx({.threads = 1});
  TestType model(ctx, shape_for<TestType>());
  randomize(model, 1);
  const token_batch batch(3, 5, 11);
  const index_t rows = 15;
  tensor<M> losses(1, rows, 99);
  model.token_losses(losses.vector(), batch.input(), batch.target());
  const pass_metrics evaluated = model.metrics();
  model.clear_metrics();
  CHECK(model.metrics().loss_sum == 0);
  model.parameters().set_trainable({});
  model.forward_backward(batch.input(), batch.target(), {.balance_groups = 1});
  const pass_metrics trained = model.metrics();
  CHECK(trained.loss_sum == evaluated.loss_sum);  // the same products in the same order
  CHECK(trained.auxiliary_sum == evaluated.auxiliary_sum);
  CHECK(trained.load == evaluated.load);
  if (TestType::mixture_type::present) {
    CHECK(trained.auxiliary_sum > 0);
    for (std::size_t layer = 0; layer < 2; ++layer)
      CHECK(trained.load[layer].counts[0] + trained.load[layer].counts[1] + trained.load[layer].counts[2] == 2 * rows);
  } else {
    CHECK(trained.auxiliary_sum == 0);
    CHECK(all_counts(trained.load).empty());
  }

  // Cross entropy of the logits. log and exp of numbers of about 1, a sum of 11.
  const tensor<M> logits = all_logits(model, batch);
  double sum = 0;
  for (index_t t = 0; t < rows; ++t) {
    const std::int32_t target = batch.targets[static_cast<std::size_t>(t)];
    if (target < 0) {
      CHECK(losses.at(0, t) == 0);
      continue;
    }
    double total = 0;
    for (index_t v = 0; v < 11; ++v) total += std::exp(logits.at(t, v));
    const double want = std::log(total) - logits.at(t, target);
    CHECK(std::abs(losses.at(0, t) - want) <= 64 * unit_roundoff<M> * (1 + want + std::abs(logits.at(t, target))));
    sum += want;
  }
  CHECK(std::abs(sum - evaluated.loss_sum) <= 64 * unit_roundoff<M> * (1 + 2 * sum));

  // The last position of each sequence; a product of three rows may order its terms differently from one of 15.
  tensor<M> next(3, 11);
  model.next_token_logits(next.matrix(), batch.input());
  for (index_t b = 0; b < 3; ++b)
    for (index_t v = 0; v < 11; ++v)
      CHECK(std::abs(next.at(b, v) - logits.at(5 * b + 4, v)) <= 32 * unit_roundoff<M> * (1 + std::abs(next.at(b, v))));
}

TEMPLATE_TEST_CASE("models: a later token never changes what came before, nor another sequence", "[models]",
                   dense_of<fp64>, moe_of<fp32>) {
  context<cpu> ctx({.threads = 1});
  TestType model(ctx, shape_for<TestType>());
  randomize(model, 1);
  token_batch batch(2, 6, 11);
  const auto before = all_logits(model, batch);
  for (index_t position = 0; position < 6; ++position) {
    token_batch changed = batch;
    auto& token = changed.inputs[static_cast<std::size_t>(position)];
    token = (token + 1) % 11;
    const auto after = all_logits(model, changed);
    for (index_t t = 0; t < 12; ++t) {
      bool same = true;
      for (index_t v = 0; v < 11; ++v) same = same && before.matrix()(t, v) == after.matrix()(t, v);
      INFO("changed " << position << ", looked at " << t);
      CHECK(same == (t < position || t >= 6));
    }
  }
}

TEMPLATE_TEST_CASE("models: frozen tensors leave the other gradients alone", "[models]", dense_of<fp64>, moe_of<fp64>) {
  context<cpu> ctx({.threads = 1});
  TestType model(ctx, shape_for<TestType>());
  randomize(model, 1);
  const token_batch batch(2, 6, 11);
  const auto gradients_with = [&](const trainable_rule& rule) {
    model.parameters().set_trainable(rule);
    const auto arena = model.parameters().gradients();
    for (index_t i = 0; i < arena.extent(0); ++i) arena[i] = 0;
    model.forward_backward(batch.input(), batch.target(), {.token_scale = 0.1});
    return std::vector<double>(arena.data, arena.data + arena.extent(0));
  };
  const std::vector<double> all = gradients_with({});
  CHECK(model.parameters().trained_parameter_count() == model.layout().parameter_count());
  for (const role kind : {role::embedding, role::attention, role::norm, role::ffn, role::router, role::head}) {
    const std::vector<double> some = gradients_with([&](const tensor_entry& entry) { return entry.kind != kind; });
    index_t frozen = 0;
    for (const tensor_entry& entry : model.layout().tensors) {
      frozen += entry.kind == kind ? entry.size() : 0;
      for (index_t i = 0; i < entry.size(); ++i) {
        const auto at = static_cast<std::size_t>(entry.offset + i);
        REQUIRE(some[at] == (entry.kind == kind ? 0.0 : all[at]));
      }
    }
    CHECK((frozen > 0) == (kind != role::router || TestType::mixture_type::present));
    CHECK(model.parameters().trained_parameter_count() == model.layout().parameter_count() - frozen);
  }
}

TEST_CASE("models: setting what is trained clears gradients of before", "[models]") {
  context<cpu> ctx({.threads = 1});
  dense_of<fp64> model(ctx, small_shape());
  randomize(model, 1);
  const token_batch batch(2, 6, 11);
  model.parameters().set_trainable({});
  model.forward_backward(batch.input(), batch.target(), {});
  model.parameters().set_trainable({});
  const auto arena = model.parameters().gradients();
  for (index_t i = 0; i < arena.extent(0); ++i) REQUIRE(arena[i] == 0);
}

TEMPLATE_TEST_CASE("models: no memory is asked for after the first pass", "[models]", dense_of<fp64>, moe_of<fp64>,
                   moe_of<bf16>) {
  context<cpu> ctx({.threads = 2});
  TestType model(ctx, shape_for<TestType>());
  randomize(model, 1);
  const token_batch batch(4, 16, 11);
  model.parameters().set_trainable({});
  model.forward_backward(batch.input(), batch.target(), {});
  CHECK(ctx.workspace().live_bytes() == 0);
  const std::size_t requests = ctx.workspace().requests();
  CHECK(requests > 0);
  tensor<typename TestType::M> losses(1, 64), next(4, 11);
  for (int i = 0; i < 3; ++i) {
    model.forward_backward(batch.input(), batch.target(), {});
    model.token_losses(losses.vector(), batch.input(), batch.target());
    model.next_token_logits(next.matrix(), batch.input());
  }
  CHECK(ctx.workspace().requests() == requests);
}

// A number depends on the seed, the tensor's name and the element alone.
TEST_CASE("models: initial values are those of the declaration and shared by models that share tensors", "[models]") {
  context<cpu> ctx({.threads = 1});
  transformer_shape shape = small_shape(3);
  shape.vocabulary = 500;
  moe_of<fp32> a(ctx, shape), b(ctx, shape), other(ctx, shape);
  shape.experts = 0;
  dense_of<fp32> dense(ctx, shape);
  a.initialize(5);
  b.initialize(5);
  other.initialize(6);
  dense.initialize(5);
  const auto values = [](auto& model, const std::string& name) {
    const tensor_entry* entry = model.layout().find(name);
    REQUIRE(entry != nullptr);
    const float* data = model.parameters().master().data + entry->offset;
    return std::vector<float>(data, data + entry->size());
  };
  for (const tensor_entry& entry : a.layout().tensors) {
    INFO(entry.name);
    const std::vector<float> drawn = values(a, entry.name);
    CHECK(drawn == values(b, entry.name));
    double sum = 0, square = 0;
    for (const float v : drawn) sum += v, square += static_cast<double>(v) * v;
    const double n = static_cast<double>(drawn.size());
    if (entry.columns == 0) {
      CHECK(sum == n);
      CHECK(square == n);
      continue;
    }
    CHECK(drawn != values(other, entry.name));
    // Mean within 5 standard errors of 0, variance within 5 of 0.02^2 (the variance of a sample's variance is 2 sigma^4
    // / n).
    CHECK(std::abs(sum / n) < 5 * 0.02 / std::sqrt(n));
    CHECK(std::abs(square / n - 0.0004) < 5 * 0.0004 * std::sqrt(2 / n));
    if (dense.layout().find(entry.name) != nullptr) CHECK(values(dense, entry.name) == drawn);
  }
  CHECK(values(a, "model.layers.0.block_sparse_moe.experts.0.w1.weight") !=
        values(a, "model.layers.0.block_sparse_moe.experts.1.w1.weight"));
  CHECK(values(a, "model.layers.0.self_attn.q_proj.weight") != values(a, "model.layers.1.self_attn.q_proj.weight"));
}

TEST_CASE("models: shapes that contradict themselves or the policies are refused", "[models]") {
  context<cpu> ctx({.threads = 1});
  CHECK_THROWS_WITH(dense_of<fp32>(ctx, small_shape(2)),
                    "dense_transformer: expected a shape without experts, got experts=2");
  CHECK_THROWS_WITH(moe_of<fp32>(ctx, small_shape(1)),
                    "moe: expected experts_per_token <= experts, got experts_per_token=2, experts=1");
  transformer_shape shape = small_shape();
  shape.kv_heads = 3;
  CHECK_THROWS_WITH(dense_of<fp32>(ctx, shape),
                    "transformer_shape: expected heads to be a multiple of kv_heads, got heads=2, kv_heads=3");
  shape = small_shape();
  shape.head_dim = 5;
  CHECK_THROWS_AS(dense_of<fp32>(ctx, shape), error);
  shape = small_shape();
  shape.blocks = 0;
  CHECK_THROWS_AS(dense_of<fp32>(ctx, shape), error);
}

}  // namespace transformer_tests
