// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Mixes with attention experts: which tensor comes from where, what a mix of copies computes, model directories, and
// the adapter variant, whose training leaves everything but routers and adapters bit for bit.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <graft/mix/edit_experts.hpp>
#include <graft/mix/model_directories.hpp>
#include <graft/policies/router/soft.hpp>

#include "io/io_test.hpp"
#include "train/training_check.hpp"

namespace attention_experts_tests {

using namespace graft;
using namespace graft::test;

namespace {

using exact = compute<fp64, cpu>;
using plain = compute<fp32, cpu>;
using soft_three = mixture<soft<3>, no_balancer, routed>;
using bam = with_attention_experts<soft_three>;

transformer_shape seed_shape(index_t experts = 0) {
  transformer_shape shape = small_shape(experts);
  shape.vocabulary = 257;
  shape.qk_norm = true;
  return shape;
}

// Three dense branches in host memory.
struct branches {
  transformer_shape shape = seed_shape();
  parameter_layout layout = make_layout(transformer_specs(shape));
  std::vector<std::vector<float>> values;
  std::vector<mix_source<float>> sources;

  branches() {
    for (std::uint64_t b = 0; b < 3; ++b) {
      values.emplace_back(static_cast<std::size_t>(layout.size), 0.0f);
      const random_source draw{b, random_stream::data};
      for (const tensor_entry& entry : layout.tensors)
        for (index_t i = entry.offset; i < entry.offset + entry.size(); ++i)
          values.back()[static_cast<std::size_t>(i)] =
              static_cast<float>((entry.columns == 0 ? 1 : 0) + 0.3 * draw.normal(1, static_cast<std::uint64_t>(i)));
    }
    for (const char* name : {"a", "b", "c"}) sources.push_back({name, shape, "bytes", &layout, values[sources.size()]});
  }
  const float* tensor(std::size_t branch, const std::string& name) const {
    const tensor_entry* entry = layout.find(name);
    REQUIRE(entry != nullptr);
    return values[branch].data() + entry->offset;
  }
};

std::vector<branch_directory> save_branches(const io_test::scratch_folder& folder, const branches& of) {
  std::vector<branch_directory> result;
  for (std::size_t b = 0; b < 3; ++b) {
    const std::string name(1, static_cast<char>('a' + b));
    save_model(folder / name, {.shape = of.shape, .experts_per_token = 0}, of.layout, of.values[b].data(),
               model_card{});
    result.push_back({folder / name, name, "domain " + name});
  }
  return result;
}

template <class Mixture>
std::vector<float> logits_of(const transformer_shape& shape, const Mixture& mixture,
                             const std::filesystem::path& folder) {
  context<cpu> ctx({.threads = 1});
  transformer<Mixture, plain> model(ctx, shape, mixture);
  load_parameters(folder, model.layout(), model.parameters().master().data);
  const token_batch batch(2, 6, shape.vocabulary);
  std::vector<float> out(static_cast<std::size_t>(12 * shape.vocabulary));
  model.logits(matrix_view<float>(out.data(), 12, shape.vocabulary), batch.input());
  return out;
}

}  // namespace

TEST_CASE("mix: bam keeps attention and feed-forward layers of the branches, averages the rest, draws both routers",
          "[mix]") {
  const branches models;
  const attention_experts moa{.shared_kv = GENERATE(false, true), .adapters = GENERATE(false, true)};
  const parameter_layout target = make_layout(transformer_specs(seed_shape(3), bam({}, moa)));
  std::vector<float> soup(models.values[0].size()), mixed(static_cast<std::size_t>(target.size));
  mix<float>(soup_recipe, models.sources, models.layout, soup);
  mix<float>(bam_recipe, models.sources, target, mixed, {.seed = 4});
  int attention = 0, norms = 0, routers = 0, adapters = 0, averaged = 0;
  for (const tensor_entry& entry : target.tensors) {
    INFO(entry.name);
    const float* got = mixed.data() + entry.offset;
    const auto same = [&](const float* want) { return std::equal(got, got + entry.size(), want); };
    const std::string layer = entry.name.substr(0, entry.name.find("self_attn"));
    const std::string last = entry.name.substr(entry.name.rfind('.', entry.name.size() - 8) + 1);
    if (entry.kind == role::router || entry.kind == role::adapter) {
      std::vector<float> drawn(static_cast<std::size_t>(entry.size()));
      draw_initial(entry, 4, drawn.data());
      CHECK(same(drawn.data()));
      ++(entry.kind == role::router ? routers : adapters);
    } else if (entry.expert >= 0 && entry.kind != role::ffn) {
      CHECK(same(models.tensor(static_cast<std::size_t>(entry.expert), layer + "self_attn." + last)));
      ++(entry.kind == role::norm ? norms : attention);
    } else if (entry.expert < 0) {
      const tensor_entry* source = models.layout.find(entry.name);
      REQUIRE(source != nullptr);
      CHECK(same(soup.data() + source->offset));
      ++averaged;
    }
  }
  CHECK(attention == 2 * 3 * (moa.shared_kv ? 2 : 4));
  CHECK(norms == 2 * 3 * (moa.shared_kv ? 1 : 2));
  CHECK(averaged == 3 + 2 * (2 + (moa.shared_kv ? 3 : 0)));
  CHECK(routers == 2 * 2);
  CHECK(adapters == (moa.adapters ? 2 * 3 : 0));
}

TEST_CASE("mix: a bam mix of copies of a seed gives the seed's logits", "[mix]") {
  context<cpu> ctx({.threads = 1});
  const attention_experts moa{.experts_per_token = GENERATE(0, 2), .shared_kv = GENERATE(false, true)};
  dense_transformer<exact> seed(ctx, seed_shape());
  randomize(seed, 1);
  const auto arena = seed.parameters().master();
  const std::vector<double> values(arena.data, arena.data + arena.extent(0));
  std::vector<mix_source<double>> copies;
  for (const char* name : {"a", "b", "c"}) copies.push_back({name, seed.shape(), "bytes", &seed.layout(), values});
  transformer<bam, exact> mixed(ctx, seed_shape(3), bam({}, moa));
  std::vector<double> target(static_cast<std::size_t>(mixed.layout().size));
  mix<double>(bam_recipe, copies, mixed.layout(), target, {.seed = 3});
  copy_from_host(ctx, mixed.parameters().master(), target.data());

  const token_batch batch(2, 6, 257);
  tensor<double> want(12, 257), got(12, 257);
  seed.logits(want.matrix(), batch.input());
  mixed.logits(got.matrix(), batch.input());
  // Weights sum to one up to a few roundings, and two blocks carry that on, through logits below 10.
  CHECK(mismatch(got, want, [](index_t, index_t) { return 1e-12; }) == "");
}

TEST_CASE("mix: what a recipe for attention experts cannot fill is refused", "[mix]") {
  const branches models;
  std::vector<float> out(20000);
  const auto into = [&](const parameter_layout& target, const recipe& how) {
    REQUIRE(target.size <= 20000);
    return io_test::message_of([&] { mix<float>(how, models.sources, target, out); });
  };
  CHECK(into(make_layout(transformer_specs(seed_shape(3), soft_three{})), bam_recipe) ==
        "mix: recipe bam keeps attention parameters one per branch, but the new model has no attention experts");
  CHECK(into(make_layout(transformer_specs(seed_shape(3), bam({}, {.experts = 4}))), bam_recipe) ==
        "mix: recipe bam keeps attention parameters one per branch, but "
        "model.layers.0.self_attn.experts.3.q_proj.weight is the share of expert 3 and there are 3 models");
  CHECK(into(make_layout(transformer_specs(seed_shape(3), bam({}, {.experts = 2}))), bam_recipe) ==
        "mix: tensor model.layers.0.self_attn.q_proj.weight of c was used 0 times by recipe bam, expected once");
  CHECK(into(make_layout(transformer_specs(seed_shape(3), bam{})), btx_recipe) ==
        "mix: a has no tensor model.layers.0.self_attn.experts.0.q_proj.weight, which "
        "model.layers.0.self_attn.experts.0.q_proj.weight is made from");
}

TEST_CASE("mix_directories: a bam mix is read again as it was mixed", "[mix]") {
  const io_test::scratch_folder folder;
  const branches models;
  const auto from = save_branches(folder, models);
  const attention_experts moa{.shared_kv = GENERATE(false, true), .adapters = GENERATE(false, true)};
  directory_mix_options options{.mix = {.seed = 4}, .plan = bam_plan(moa), .experts_per_token = 3};
  mix_directories(bam_recipe, from, folder / "mix", options);

  const model_info info = load_model_info(folder / "mix");
  CHECK(info.family == model_family::graft);
  CHECK(info.config.shape == seed_shape(3));
  REQUIRE((info.card && info.card->attention && info.card->layout));
  attention_experts want = moa;
  want.experts = 3;
  CHECK(attention_experts_of(*info.card->attention) == want);
  CHECK(info.card->router->name == "soft");
  CHECK(info.card->experts[1] == expert_card{"b", "domain b"});

  // The same in memory, saved by a program with the layout of its own type.
  const auto check = [&](const auto& mixture) {
    const parameter_layout layout = make_layout(transformer_specs(seed_shape(3), mixture));
    std::vector<float> values(static_cast<std::size_t>(layout.size));
    mix<float>(bam_recipe, models.sources, layout, values, {.seed = 4});
    save_model(folder / "again", info.config, layout, values.data(), *info.card);
    const std::vector<float> logits = logits_of(seed_shape(3), mixture, folder / "mix");
    CHECK(logits == logits_of(seed_shape(3), mixture, folder / "again"));
    // Attention is not the average's.
    mix_directories(btx_recipe, from, folder / "btx",
                    {.mix = {.seed = 4}, .plan = {.router = {"soft"}}, .experts_per_token = 3});
    CHECK(logits != logits_of(seed_shape(3), soft_three{}, folder / "btx"));
  };
  if (moa.adapters)
    check(with_attention_experts<mixture<soft<3>, no_balancer, adapted>>({}, want));
  else
    check(bam({}, want));

  CHECK_ERROR(remove_experts(folder / "mix", {"b"}, folder / "out"), "attention experts");
  host_model read = load_host_model(folder / "mix");
  CHECK(read.layout.find("model.layers.1.self_attn.experts.2.o_proj.weight") != nullptr);
}

TEST_CASE("mix_directories: bam with planned experts, without experts of feed-forward layers, refusals", "[mix]") {
  const io_test::scratch_folder folder;
  const auto from = save_branches(folder, branches{});
  // Attention experts are one per branch whatever the plan of the others.
  directory_mix_options options{.plan = bam_plan(), .experts_per_token = 6};
  options.experts = split_experts(2);
  mix_directories(bam_recipe, from, folder / "split", options);
  const model_info split = load_model_info(folder / "split");
  CHECK(split.config.shape.experts == 6);
  CHECK(attention_experts_of(*split.card->attention).experts == 3);
  const host_model host = load_host_model(folder / "split");
  CHECK(host.layout.find("model.layers.1.self_attn.gate.weight")->rows == 3);
  CHECK(host.layout.find("model.layers.1.block_sparse_moe.gate.weight")->rows == 6);

  // Attention experts over averaged feed-forward layers.
  constexpr recipe attention_alone =
      soup_recipe.with(role::attention, merge_rule::one_per_branch).with(role::router, merge_rule::fresh);
  mix_directories(attention_alone, from, folder / "moa", {.plan = bam_plan()});
  const model_info moa = load_model_info(folder / "moa");
  CHECK((moa.card->kind == "dense" && moa.family == model_family::graft));
  logits_of(moa.config.shape, with_attention_experts<no_mixture>({}, attention_experts_of(*moa.card->attention)),
            folder / "moa");

  CHECK_ERROR(mix_directories(btx_recipe, from, folder / "out", {.plan = bam_plan(), .experts_per_token = 3}),
              "recipe btx does not keep attention apart");
  CHECK_ERROR(mix_directories(bam_recipe, from, folder / "out",
                              {.plan = bam_plan({.experts_per_token = 4}), .experts_per_token = 3}),
              "experts=3, experts_per_token=4");
  options.plan.attention->name = "attention_expert";
  CHECK_ERROR(mix_directories(bam_recipe, from, folder / "out", options), "expected the attention attention_experts",
              "got attention_expert");
  options.plan.attention = policy_card{"attention_experts", {{"experts_per_tokens", 1}}};
  CHECK_ERROR(mix_directories(bam_recipe, from, folder / "out", options), "experts_per_token",
              "got experts_per_tokens");
  CHECK(!std::filesystem::exists(folder / "out"));
}

namespace {

struct adapter_bam : with_attention_experts<mixture<soft<3>, no_balancer, adapted>> {
  adapter_bam() { attention.adapters = true; }
};

}  // namespace

TEST_CASE("trainable: bam with adapters trains routers and adapters, all else keeps its bits", "[mix]") {
  using model_type = transformer<adapter_bam, plain>;
  training_options options = some_steps();
  options.steps = 3;
  options.optimizer.weight_decay = 0.1;
  process<model_type> run(1, options, trainable_after_mix(mix_training::routers_and_adapters));
  const auto& block = run.model.parameters().gradient_views().model.layers[0];
  CHECK((!block.self_attn.experts.qkv_proj.present() && !block.self_attn.experts.o_proj.present()));
  CHECK((block.self_attn.experts.adapter.present() && block.self_attn.gate.present()));
  const auto before = master_of(run.model);
  run.losses(3);
  const auto after = master_of(run.model);
  int moved = 0;
  for (const tensor_entry& entry : run.model.layout().tensors) {
    CAPTURE(entry.name);
    const bool changed = !std::equal(before.begin() + entry.offset, before.begin() + entry.offset + entry.size(),
                                     after.begin() + entry.offset);
    CHECK(changed == (entry.kind == role::router || entry.kind == role::adapter));
    moved += changed;
  }
  CHECK(moved == 2 * 2 * (1 + 3));
}

}  // namespace attention_experts_tests
