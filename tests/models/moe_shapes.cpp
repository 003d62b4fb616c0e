// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Models some of whose blocks are dense, with experts that every token uses, and with capacities: gradients, counts and
// what they are known to equal.

#include "catch.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <graft/layers/any_mixture.hpp>
#include <graft/models/counts.hpp>
#include <graft/policies/expert_layout/capacity.hpp>
#include <graft/policies/expert_layout/shared_routed.hpp>

#include "model_gradients.hpp"

namespace moe_shapes_tests {

using namespace graft;
using namespace graft::test;

namespace {

using gated = shared_routed<shared_expert_mode::sigmoid_gated>;
template <class L, int K = 2>
using mixture_over = mixture<top_k<K>, balancers, L>;

struct dense_blocks {
  index_t blocks, first_dense, moe_period, dense_hidden;
};

transformer_shape shape_with(const dense_blocks& dense, index_t shared_hidden = 0) {
  transformer_shape shape = small_shape(3);
  shape.blocks = dense.blocks;
  shape.first_dense = dense.first_dense;
  shape.moe_period = dense.moe_period;
  shape.dense_hidden = dense.dense_hidden;
  shape.shared_hidden = shared_hidden;
  return shape;
}

// DeepSeekMoE 16B, arXiv 2401.06066: 16.4B parameters, 2.8B for one token. 64 experts and two that every token uses;
// the first block is dense.
constexpr transformer_shape deepseek_moe{.vocabulary = 102400,
                                         .width = 2048,
                                         .blocks = 28,
                                         .heads = 16,
                                         .kv_heads = 16,
                                         .head_dim = 128,
                                         .hidden = 1408,
                                         .positions = 4096,
                                         .experts = 64,
                                         .shared_hidden = 2 * 1408,
                                         .first_dense = 1,
                                         .dense_hidden = 10944};
using deepseek_mixture = mixture<top_k<6>, no_balancer, shared_routed<>>;
static_assert(parameter_count(deepseek_moe, deepseek_mixture{}) == 16'375'728'128);
static_assert(active_parameter_count(deepseek_moe, deepseek_mixture{}) == 2'828'650'496);

// Qwen1.5-MoE-A2.7B: 14,315,784,192 parameters on its model card, 3 x 2048 biases in each of 24 blocks among them.
constexpr transformer_shape qwen2_moe{.vocabulary = 151936,
                                      .width = 2048,
                                      .blocks = 24,
                                      .heads = 16,
                                      .kv_heads = 16,
                                      .head_dim = 128,
                                      .hidden = 1408,
                                      .positions = 8192,
                                      .experts = 60,
                                      .shared_hidden = 5632};
static_assert(parameter_count(qwen2_moe, mixture<top_k<4>, no_balancer, gated>{}) == 14'315'784'192 - 24 * 3 * 2048);

// Qwen3-30B-A3B: 30.5B and 3.3B on its model card.
constexpr transformer_shape qwen3_moe{.vocabulary = 151936,
                                      .width = 2048,
                                      .blocks = 48,
                                      .heads = 32,
                                      .kv_heads = 4,
                                      .head_dim = 128,
                                      .hidden = 768,
                                      .positions = 40960,
                                      .qk_norm = true,
                                      .experts = 128};
static_assert(parameter_count(qwen3_moe, mixture<top_k<8>, no_balancer, routed>{}) == 30'532'122'624);

// Four blocks, of which the second and the fourth have experts: a block without 2 x 8 + 8 x (8 + 4 + 4 + 8) + 3 x 5 x 8
// parameters, one with three experts of 12 and a router in the place of the last term.
constexpr transformer_shape every_second{.vocabulary = 11,
                                         .width = 8,
                                         .blocks = 4,
                                         .heads = 2,
                                         .kv_heads = 1,
                                         .head_dim = 4,
                                         .hidden = 12,
                                         .positions = 16,
                                         .experts = 3,
                                         .moe_period = 2,
                                         .dense_hidden = 5};
constexpr mixture<top_k<2>, no_balancer, routed> two_of_three{};
constexpr index_t outside = 2 * 11 * 8 + 8 + 4 * (16 + 192);
static_assert(parameter_count(every_second, two_of_three) == outside + 2 * 120 + 2 * (3 * 8 + 3 * 288));
static_assert(active_parameter_count(every_second, two_of_three) == outside + 2 * 120 + 2 * (3 * 8 + 2 * 288));

// Without dense_hidden, dense blocks are as wide as an expert.
constexpr transformer_shape narrow_blocks() {
  transformer_shape shape = every_second;
  shape.dense_hidden = 0;
  return shape;
}
static_assert(parameter_count(narrow_blocks(), two_of_three) == outside + 2 * 288 + 2 * (3 * 8 + 3 * 288));

template <class Model>
std::vector<double> all_logits(Model& model, const token_batch& batch) {
  const index_t rows = batch.sequences * batch.positions, vocabulary = model.shape().vocabulary;
  std::vector<typename Model::M> logits(static_cast<std::size_t>(rows * vocabulary));
  model.logits(matrix_view<typename Model::M>(logits.data(), rows, vocabulary), batch.input());
  return {logits.begin(), logits.end()};
}

}  // namespace

TEST_CASE("moe_shapes: gradients by central differences where some blocks are dense", "[models]") {
  // The first, all but the last, every second, every second of the others, and of another width.
  const dense_blocks dense = GENERATE(dense_blocks{3, 1, 1, 7}, dense_blocks{3, 2, 1, 0}, dense_blocks{4, 0, 2, 7},
                                      dense_blocks{4, 2, 2, 0}, dense_blocks{3, 0, 3, 0});
  CAPTURE(dense.blocks, dense.first_dense, dense.moe_period, dense.dense_hidden);
  context<cpu> ctx({.threads = 1});
  mixture_of<2> policies;
  policies.balancer = {.balancers = {switch_loss{.coefficient = 0.5}, {z_loss{.coefficient = 0.25}}}};
  transformer<mixture_of<2>, compute<fp64, cpu>> model(ctx, shape_with(dense), policies);
  randomize(model, 2);
  CHECK(model_mismatch(model, 2) == "");
}

TEMPLATE_TEST_CASE("moe_shapes: gradients by central differences with shared experts and capacities", "[models]",
                   shared_routed<>, gated, shared_routed<shared_expert_mode::averaged>, capacity<gated>,
                   pad_to_capacity<capacity<>>) {
  context<cpu> ctx({.threads = 1});
  mixture_over<TestType> policies;
  policies.balancer = {.balancers = {switch_loss{.coefficient = 0.5}, {z_loss{.coefficient = 0.25}}}};
  if constexpr (!TestType::spec.dropless) set_option(policies.layout, "factor", 0.7);
  const bool shared = TestType::spec.shared != shared_expert_mode::none;
  transformer<mixture_over<TestType>, compute<fp64, cpu>> model(ctx, shape_with({2, 1, 1, 7}, shared ? 5 : 0),
                                                                policies);
  randomize(model, 3);
  CHECK(model_mismatch(model) == "");
  model.clear_metrics();
  const token_batch batch(2, 6, 11);
  model.forward_backward(batch.input(), batch.target(), {});
  const auto load = model.metrics().load;
  CHECK((load[1].dropped_slots > 0) == !TestType::spec.dropless);
  CHECK(load[0].dropped_slots == 0);
}

TEST_CASE("moe_shapes: blocks have the parameters and the load of their kind", "[models]") {
  context<cpu> ctx({.threads = 1});
  transformer<mixture_of<2>, compute<fp32, cpu>> model(ctx, shape_with({5, 2, 2, 7}));
  randomize(model, 4);
  for (index_t block = 0; block < 5; ++block) {
    const std::string name = "model.layers." + std::to_string(block) + ".";
    const bool routed_block = block == 3;  // block 1 is below first_dense, blocks 2 and 4 are not second ones
    CAPTURE(block);
    CHECK((model.layout().find(name + "block_sparse_moe.gate.weight") != nullptr) == routed_block);
    CHECK((model.layout().find(name + "block_sparse_moe.experts.2.w1.weight") != nullptr) == routed_block);
    CHECK((model.layout().find(name + "mlp.up_proj.weight") != nullptr) == !routed_block);
    if (!routed_block) CHECK(model.layout().find(name + "mlp.up_proj.weight")->rows == 7);
  }
  const token_batch batch(2, 6, 11);
  model.parameters().set_trainable({});
  model.forward_backward(batch.input(), batch.target(), {});
  const auto load = model.metrics().load;
  REQUIRE(load.size() == 5);
  for (std::size_t block = 0; block < 5; ++block) {
    CHECK(load[block].counts.size() == (block == 3 ? 3 : 0));
    CHECK(load[block].tokens == (block == 3 ? 12 : 0));
  }
  CHECK(load[3].counts[0] + load[3].counts[1] + load[3].counts[2] == 24);
}

// All experts are the dense layer, weights sum to one: every second block with experts is the dense model.
TEST_CASE("moe_shapes: a model of identical experts in some blocks equals the dense model", "[models]") {
  context<cpu> ctx({.threads = 1});
  const dense_blocks dense = GENERATE(dense_blocks{3, 1, 1, 0}, dense_blocks{4, 0, 2, 0});
  transformer_shape dense_shape = small_shape();
  dense_shape.blocks = dense.blocks;
  dense_transformer<compute<fp64, cpu>> plain(ctx, dense_shape);
  transformer<mixture_of<2>, compute<fp64, cpu>> mixed(ctx, shape_with(dense));
  randomize(plain, 5);
  randomize(mixed, 6);
  for (const tensor_entry& entry : mixed.layout().tensors) {
    std::string name = entry.name;
    if (name.find("block_sparse_moe.gate") != std::string::npos) continue;
    const auto at = name.find("block_sparse_moe.experts.");
    if (at != std::string::npos) {
      const char part = name[name.size() - 8];  // of "w1.weight"
      name = name.substr(0, at) + "mlp." +
             (part == '1'   ? "gate_proj"
              : part == '2' ? "down_proj"
                            : "up_proj") +
             ".weight";
    }
    const tensor_entry* source = plain.layout().find(name);
    REQUIRE(source != nullptr);
    std::copy_n(plain.parameters().master().data + source->offset, entry.size(),
                mixed.parameters().master().data + entry.offset);
  }
  const token_batch batch(2, 6, 11);
  const std::vector<double> want = all_logits(plain, batch), got = all_logits(mixed, batch);
  // Four blocks of sums of up to 16 terms of about 1; weights of two slots sum to one within 2 u.
  for (std::size_t i = 0; i < want.size(); ++i) REQUIRE(std::abs(got[i] - want[i]) <= 1e-12);
}

// The mixture that is chosen at run time hands parameters on by their order, those that are absent too.
TEST_CASE("moe_shapes: any_mixture of a gated shared expert gives the bits of the mixture itself", "[models]") {
  using numbers = compute<fp32, cpu>;
  context<cpu> ctx({.threads = 1});
  const transformer_shape shape = shape_with({4, 1, 2, 7}, 5);
  const mixture_over<gated> policies;
  transformer<mixture_over<gated>, numbers> model(ctx, shape, policies);
  transformer<any_mixture<numbers>, numbers> any(ctx, shape, any_mixture<numbers>(policies));
  CHECK(any.layout().size == model.layout().size);
  randomize(model, 9);
  randomize(any, 9);
  const token_batch batch(2, 6, 11);
  CHECK(all_logits(any, batch) == all_logits(model, batch));
  const auto gradients = [&](auto& of) {
    of.parameters().set_trainable({});
    of.clear_metrics();
    of.forward_backward(batch.input(), batch.target(), {.token_scale = 0.1});
    const auto all = of.parameters().gradients();
    return std::vector<float>(all.data, all.data + all.extent(0));
  };
  CHECK(gradients(any) == gradients(model));
  CHECK(active_parameter_count(shape, any.mixture()) == active_parameter_count(shape, policies));
}

TEMPLATE_TEST_CASE("moe_shapes: the same bits twice and on two threads", "[models]", fp32, bf16) {
  const auto run = [](int threads) {
    context<cpu> ctx({.threads = threads});
    mixture_over<capacity<gated, drop_by::probability>> policies;
    policies.layout.factor = 0.8;
    transformer<decltype(policies), compute<TestType, cpu>> model(ctx, shape_with({2, 1, 1, 7}, 5), policies);
    randomize(model, 7);
    const token_batch batch(8, 16, 11);
    model.parameters().set_trainable({});
    model.forward_backward(batch.input(), batch.target(), {.token_scale = 0.1});
    const auto gradients = model.parameters().gradients();
    bool any = false;
    for (index_t i = 0; i < gradients.extent(0); ++i) any = any || gradients[i] != 0;
    REQUIRE(any);
    REQUIRE(model.metrics().load[1].dropped_slots > 0);
    return std::vector<float>(gradients.data, gradients.data + gradients.extent(0));
  };
  const std::vector<float> once = run(1);
  CHECK(once == run(1));
  CHECK(once == run(2));
}

}  // namespace moe_shapes_tests
