// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Models with attention experts: gradients, what they equal at the ends (one expert, equal experts, adapters as they
// start), over any_mixture, from a cache, and what they count, for the models of the BTS paper.

#include "catch.hpp"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include <graft/layers/any_mixture.hpp>
#include <graft/layers/attention_experts.hpp>
#include <graft/mix/trainable.hpp>
#include <graft/models/counts.hpp>
#include <graft/models/generation.hpp>
#include <graft/policies/expert_layout/with_experts.hpp>
#include <graft/policies/router/soft.hpp>
#include <graft/train/checkpoint.hpp>

#include "model_gradients.hpp"

namespace attention_experts_tests {

using namespace graft;
using namespace graft::test;

namespace {

using exact = compute<fp64, cpu>;
using half = compute<bf16, cpu>;
using bam = with_attention_experts<mixture_of<2>>;
template <class C>
using bam_model = transformer<bam, C>;
template <class C>
using dense_moa = transformer<with_attention_experts<no_mixture>, C>;

template <class Model>
std::vector<double> all_logits_of(Model& model, const token_batch& batch) {
  using M = typename Model::M;
  const index_t rows = batch.sequences * batch.positions, vocabulary = model.shape().vocabulary;
  std::vector<M> out(static_cast<std::size_t>(rows * vocabulary));
  model.logits(matrix_view<M>(out.data(), rows, vocabulary), batch.input());
  return {out.begin(), out.end()};
}

// Every tensor of `to` from the one of `from` that it is a copy of, others as they are.
template <class From, class To>
void copy_attention(From& from, To& to) {
  for (const tensor_entry& entry : to.layout().tensors) {
    std::string name = entry.name;
    if (const auto at = name.find("self_attn.experts."); at != std::string::npos)
      name.erase(at + 10, name.find('.', at + 18) - at - 9);
    const tensor_entry* source = from.layout().find(name);
    if (source == nullptr) continue;
    std::copy_n(from.parameters().master().data + source->offset, entry.size(),
                to.parameters().master().data + entry.offset);
  }
  to.parameters().refresh(to.context());
}

}  // namespace

TEST_CASE("models: gradients with attention experts by central differences", "[models]") {
  context<cpu> ctx({.threads = 1});
  attention_experts moa = GENERATE(attention_experts{}, attention_experts{.experts = 2, .shared_kv = true},
                                   attention_experts{.experts = 3, .experts_per_token = 2, .adapters = true});
  CAPTURE(moa.shared_kv, moa.adapters);
  mixture_of<2> policies;
  policies.balancer = {.balancers = {switch_loss{.coefficient = 0.5}, {z_loss{.coefficient = 0.25}}}};
  transformer_shape shape = small_shape(3);
  shape.qk_norm = !moa.shared_kv;
  bam_model<exact> model(ctx, shape, bam(policies, moa));
  randomize(model, 2);
  CHECK(model_mismatch(model, 2) == "");
}

TEMPLATE_TEST_CASE("models: one attention expert is the attention, bit for bit", "[models]", exact, half) {
  context<cpu> ctx({.threads = 2});
  transformer_shape shape = small_shape();
  shape.qk_norm = true;
  const attention_experts moa{.experts = 1, .adapters = GENERATE(false, true)};
  dense_transformer<TestType> dense(ctx, shape);
  dense_moa<TestType> model(ctx, shape, with_attention_experts<no_mixture>({}, moa));
  randomize(dense, 1);
  model.initialize(2);
  copy_attention(dense, model);
  const token_batch batch(2, 6, 11);
  CHECK(all_logits_of(model, batch) == all_logits_of(dense, batch));
}

TEST_CASE("models: equal attention experts compute what each of them does", "[models]") {
  context<cpu> ctx({.threads = 1});
  const attention_experts moa{.experts = 3,
                              .experts_per_token = GENERATE(0, 2),
                              .shared_kv = GENERATE(false, true),
                              .adapters = GENERATE(false, true)};
  dense_transformer<exact> dense(ctx, small_shape());
  dense_moa<exact> model(ctx, small_shape(), with_attention_experts<no_mixture>({}, moa));
  randomize(dense, 1);
  model.initialize(2);
  copy_attention(dense, model);
  const token_batch batch(2, 6, 11);
  const std::vector<double> got = all_logits_of(model, batch), want = all_logits_of(dense, batch);
  // Weights sum to one up to a few roundings; two blocks carry that on.
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - want[i]) < 1e-12);

  // A run of one form is not taken up by another.
  model.parameters().set_trainable({});
  CHECK(detail::model_signature(model).find(" attention=attention_experts attention.experts=3 ") != std::string::npos);
}

TEST_CASE("models: adapters of attention experts change nothing at the start", "[models]") {
  context<cpu> ctx({.threads = 1});
  transformer_shape shape = small_shape(3);
  using adapted_bam = with_attention_experts<mixture<top_k<2>, no_balancer, adapted>>;
  bam_model<half> plain(ctx, shape, bam({}, {.experts = 2}));
  transformer<adapted_bam, half> with_adapters(ctx, shape, adapted_bam({}, {.experts = 2, .adapters = true}));
  plain.initialize(4);
  with_adapters.initialize(4);
  const token_batch batch(2, 6, 11);
  CHECK(all_logits_of(with_adapters, batch) == all_logits_of(plain, batch));
  // And they are there.
  with_adapters.parameters()
      .master()[with_adapters.layout().find("model.layers.0.self_attn.experts.1.adapter.weight")->offset] = 2;
  with_adapters.parameters().refresh(ctx);
  CHECK(all_logits_of(with_adapters, batch) != all_logits_of(plain, batch));
}

TEST_CASE("models: attention experts over any_mixture give the bits of those over its type", "[models]") {
  context<cpu> ctx({.threads = 2});
  const token_batch batch(4, 6, 11);
  const attention_experts moa{.experts = 2};
  using any_bam = with_attention_experts<any_mixture<half>>;
  any_bam any_policies(any_mixture<half>(mixture_of<2>{}), moa);
  bam_model<half> typed(ctx, small_shape(3), bam({}, moa));
  transformer<any_bam, half> any(ctx, small_shape(3), any_policies);
  REQUIRE(any.layout().size == typed.layout().size);
  for (std::size_t i = 0; i < typed.layout().tensors.size(); ++i)
    CHECK(any.layout().tensors[i].name == typed.layout().tensors[i].name);
  const auto gradients = [&](auto& model) {
    randomize(model, 1);
    model.parameters().set_trainable({});
    model.forward_backward(batch.input(), batch.target(), {.token_scale = 0.1});
    const auto arena = model.parameters().gradients();
    return std::vector<double>(arena.data, arena.data + arena.extent(0));
  };
  CHECK(gradients(any) == gradients(typed));
  CHECK(any_bam::name_of(any_policies) == bam::name_of(bam({}, moa)));
  CHECK(any_bam::name_of(any_policies).find(" attention=attention_experts attention.experts=2 ") != std::string::npos);

  // Options by name, the mixture's and the attention's.
  any_policies.set_option("attention.experts_per_token", 1);
  any_policies.set_option("balancer.switch_loss.coefficient", 0.5);
  CHECK(any_policies.attention.experts_per_token == 1);
  const auto options = any_policies.options();
  const auto has = [&](const char* name, double value) {
    return std::find(options.begin(), options.end(), std::pair<std::string, double>(name, value)) != options.end();
  };
  CHECK((has("attention.experts_per_token", 1) && has("balancer.switch_loss.coefficient", 0.5)));
  CHECK_THROWS_WITH(any_policies.set_option("attention.slots", 1), Catch::Contains("experts_per_token"));
}

TEST_CASE("models: attention experts from a cache", "[models]") {
  context<cpu> ctx({.threads = 1});
  const attention_experts moa{
      .experts = 2, .experts_per_token = GENERATE(0, 1), .shared_kv = GENERATE(false, true), .adapters = true};
  CAPTURE(moa.experts_per_token, moa.shared_kv);
  transformer_shape shape = small_shape(3);
  shape.qk_norm = true;
  bam_model<exact> model(ctx, shape, bam({}, moa));
  randomize(model, 3);
  REQUIRE(model.can_cache());
  const token_batch text(1, 12, 11);
  const std::vector<double> all = all_logits_of(model, text);
  auto cache = model.make_cache(12);
  std::vector<double> logits(11);
  for (const index_t end : {5, 6, 7, 10, 12}) {  // five tokens, one, one, three, two
    model.extend(cache, vector_view<const std::int32_t>(text.inputs.data() + cache.length, end - cache.length),
                 vector_view<double>(logits.data(), 11));
    REQUIRE(cache.length == end);
    for (index_t i = 0; i < 11; ++i) {
      CAPTURE(end, i);
      // Another order of the sums over keys.
      CHECK(std::abs(logits[static_cast<std::size_t>(i)] - all[static_cast<std::size_t>((end - 1) * 11 + i)]) < 1e-11);
    }
  }
}

namespace {

// The seed of Branch-Train-Stitch, arXiv 2502.00075, and three experts: trained, total and active parameters as its
// table 2 prints them, 8.4B of each, and 1.5B, 9.9B and 9.9B with adapters.
constexpr transformer_shape bts_four{.vocabulary = 128000,
                                     .width = 3072,
                                     .blocks = 20,
                                     .heads = 24,
                                     .kv_heads = 1,
                                     .head_dim = 128,
                                     .hidden = 8192,
                                     .positions = 8192,
                                     .experts = 4};
using bts_bam = with_attention_experts<mixture<soft<4>, no_balancer, routed>>;
using bts_bam_adapters = with_attention_experts<mixture<soft<4>, no_balancer, adapted>>;
constexpr attention_experts with_adapters{.adapters = true};
static_assert(parameter_count(bts_four, bts_bam{}) == 8'399'711'232);
static_assert(active_parameter_count(bts_four, bts_bam{}) == 8'399'711'232);
static_assert(parameter_count(bts_four, bts_bam_adapters({}, with_adapters)) == 9'909'660'672);
static_assert(active_parameter_count(bts_four, bts_bam_adapters({}, with_adapters)) == 9'909'660'672);
// Four maps of attention.
static_assert(flops_per_token(bts_four, 7, bts_bam{}).forward ==
              2.0 * (8'399'711'232.0 - 128000 * 3072) + 4 * 4.0 * 20 * 3072 * 4);

}  // namespace

TEST_CASE("counts: what BAM with adapters trains, from the type", "[models]") {
  const parameter_layout layout = make_layout(transformer_specs(bts_four, bts_bam_adapters({}, with_adapters)));
  const trainable_rule rule = trainable_after_mix(mix_training::routers_and_adapters);
  index_t trained = 0;
  for (const tensor_entry& entry : layout.tensors) trained += rule(entry) ? entry.size() : 0;
  CHECK(trained == 20 * 2 * 4 * (3072 * 3072 + 3072));
  CHECK(static_cast<double>(trained) / 1e9 == Approx(1.5).margin(0.05));
  // With common keys and values there is one pair instead of four.
  CHECK(parameter_count(bts_four, bts_bam({}, {.shared_kv = true})) == 8'399'711'232 - 20 * 3 * 2 * 128 * 3072);
}

}  // namespace attention_experts_tests
