// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// What is trained after a mix, by role and by expert: what is frozen keeps its bits through AdamW with weight decay,
// and what is not frozen moves.

#include "catch.hpp"

#include <string>
#include <vector>

#include <graft/mix/trainable.hpp>
#include <graft/policies/expert_layout/with_experts.hpp>
#include <graft/policies/router/flex_olmo.hpp>

#include "train/training_check.hpp"

namespace trainable_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <class R, class L>
using model_of = transformer<mixture<R, no_balancer, L>, compute<fp32, cpu>>;

training_options with_decay() {
  training_options options = some_steps();
  options.steps = 3;
  options.optimizer.weight_decay = 0.1;
  return options;
}

// Trains a few steps and tells for every tensor whether its bits have changed.
template <class Model>
std::vector<bool> moved(const trainable_rule& rule) {
  process<Model> run(1, with_decay(), rule);
  const auto before = master_of(run.model);
  run.losses(3);
  const auto after = master_of(run.model);
  std::vector<bool> result;
  for (const tensor_entry& entry : run.model.layout().tensors)
    result.push_back(!std::equal(before.begin() + entry.offset, before.begin() + entry.offset + entry.size(),
                                 after.begin() + entry.offset));
  return result;
}
template <class Model>
parameter_layout layout_of_model() {
  context<cpu> ctx({.threads = 1});
  return Model(ctx, medium_shape<Model>()).layout();
}

}  // namespace

TEMPLATE_TEST_CASE("trainable: by role, bits after AdamW", "[mix]", (model_of<top_k<2>, adapted>),
                   (model_of<top_k<2>, lora>), (model_of<top_k<2>, routed>)) {
  const parameter_layout layout = layout_of_model<TestType>();
  const bool has_adapters = std::any_of(layout.tensors.begin(), layout.tensors.end(),
                                        [](const tensor_entry& entry) { return entry.kind == role::adapter; });
  for (const mix_training what : all_mix_trainings) {
    if (what == mix_training::adapters && !has_adapters) continue;
    CAPTURE(name_of(what));
    const std::vector<bool> changed = moved<TestType>(trainable_after_mix(what));
    for (std::size_t i = 0; i < changed.size(); ++i) {
      const tensor_entry& entry = layout.tensors[i];
      CAPTURE(entry.name);
      const bool router = entry.kind == role::router, adapter = entry.kind == role::adapter,
                 expert_ffn = entry.kind == role::ffn && entry.expert >= 0;
      const bool want = what == mix_training::all               ? true
                        : what == mix_training::all_but_experts ? !expert_ffn
                        : what == mix_training::routers         ? router
                        : what == mix_training::adapters        ? adapter
                                                                : router || adapter;
      CHECK(changed[i] == want);
    }
  }
}

TEST_CASE("trainable: frozen feed-forward layers have no gradient", "[mix]") {
  using model_type = model_of<top_k<2>, adapted>;
  context<cpu> ctx({.threads = 1});
  model_type model(ctx, medium_shape<model_type>());
  model.parameters().set_trainable(trainable_after_mix(mix_training::routers_and_adapters));
  const auto& block = model.parameters().gradient_views().model.layers[0];
  CHECK(!block.block_sparse_moe.experts.w13.present());
  CHECK(!block.block_sparse_moe.experts.w2.present());
  CHECK(block.block_sparse_moe.experts.adapter.present());
  CHECK(block.block_sparse_moe.gate.present());
  CHECK(!block.self_attn.qkv_proj.present());
}

// An owner of FlexOlmo: the public expert and its row keep their bits, the owner's move, and nothing else does.
TEST_CASE("trainable: an owner trains its own expert, row and bias", "[mix]") {
  using model_type = model_of<flex_olmo<3>, routed>;
  const parameter_layout layout = layout_of_model<model_type>();
  const std::vector<bool> changed = moved<model_type>(only_experts({1}));
  int own = 0;
  for (std::size_t i = 0; i < changed.size(); ++i) {
    CAPTURE(layout.tensors[i].name);
    CHECK(changed[i] == (layout.tensors[i].expert == 1));
    own += changed[i];
  }
  CHECK(own == 2 * (3 + 2));
}

TEST_CASE("trainable: all but some experts", "[mix]") {
  using model_type = model_of<flex_olmo<3>, routed>;
  const parameter_layout layout = layout_of_model<model_type>();
  const std::vector<bool> changed = moved<model_type>(except_experts({}, {0}));
  for (std::size_t i = 0; i < changed.size(); ++i) {
    const tensor_entry& entry = layout.tensors[i];
    CAPTURE(entry.name);
    if (entry.expert == 0) CHECK(!changed[i]);
    if (entry.expert < 0 || entry.kind == role::ffn) CHECK(changed[i] == (entry.expert != 0));
  }
  // On top of another rule.
  const trainable_rule rule = except_experts(trainable_after_mix(mix_training::routers), {2});
  for (const tensor_entry& entry : layout.tensors)
    CHECK(rule(entry) == (entry.kind == role::router && entry.expert != 2));
}

TEST_CASE("trainable: experts by name", "[mix]") {
  const std::vector<expert_card> experts = {{"public", ""}, {"code", "cpp"}, {"math", "math"}};
  CHECK(experts_named(experts, {"math", "public"}) == std::vector<int>{2, 0});
  CHECK(experts_named(experts, {}).empty());
  CHECK_THROWS_WITH(experts_named(experts, {"law"}), "expected one of the experts public, code, math, got law");
  CHECK_THROWS_WITH(experts_named({}, {"law"}), "expected one of the experts (it has no names), got law");
}

}  // namespace trainable_tests
