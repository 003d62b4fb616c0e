// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Experts of model directories: planned, taken out, put together; names, domains and widths survive.

#include "catch.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/mix/edit_experts.hpp>
#include <graft/models/counts.hpp>
#include <graft/policies/expert_layout/with_experts.hpp>
#include <graft/policies/router/top_k.hpp>

namespace edit_experts_tests {

using namespace graft;
namespace fs = std::filesystem;

namespace {

struct scratch {
  fs::path path = fs::temp_directory_path() / ("graft-experts-" + std::to_string(::getpid()));
  scratch() { fs::create_directories(path); }
  ~scratch() { fs::remove_all(path); }
};

constexpr transformer_shape dense_shape{.vocabulary = 300,
                                        .width = 8,
                                        .blocks = 2,
                                        .heads = 2,
                                        .kv_heads = 1,
                                        .head_dim = 4,
                                        .hidden = 12,
                                        .positions = 16};

// Everything but feed-forward layers from seed 1.
fs::path dense_model(const fs::path& folder, std::uint64_t seed, index_t hidden = 12, std::uint64_t shared_seed = 1,
                     bool qk_norm = false) {
  transformer_shape shape = dense_shape;
  shape.hidden = hidden;
  shape.qk_norm = qk_norm;
  const parameter_layout layout = layout_of(shape);
  std::vector<float> values(static_cast<std::size_t>(layout.size), 0.0f);
  for (const tensor_entry& entry : layout.tensors)
    draw_initial(entry, entry.kind == role::ffn ? seed : shared_seed, values.data() + entry.offset);
  save_model(folder, {.shape = shape, .experts_per_token = 0}, layout, values.data(), model_card{});
  return folder;
}

// What an owner of FlexOlmo hands over: the public expert and its own, with its own row and bias.
fs::path owner_model(const fs::path& folder, const std::string& name, std::uint64_t seed) {
  transformer_shape shape = dense_shape;
  shape.experts = 2;
  model_card card;
  card.kind = "moe";
  card.router = policy_card{"flex_olmo", {{"experts_per_token", 2}}};
  card.layout = policy_card{"routed", nlohmann::json::object()};
  card.experts = {{"public", ""}, {name, "of " + name}};
  const parameter_layout layout = layout_of(shape, card);
  std::vector<float> values(static_cast<std::size_t>(layout.size), 0.0f);
  for (const tensor_entry& entry : layout.tensors) {
    draw_initial(entry, entry.expert == 1 ? seed : 1, values.data() + entry.offset);
    if (entry.expert == 1 && entry.columns == 0) values[static_cast<std::size_t>(entry.offset)] = -0.5f * seed;
  }
  save_model(folder, {.shape = shape, .experts_per_token = 2}, layout, values.data(), card);
  return folder;
}

std::string contents(const fs::path& path) {
  std::ifstream in(path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}
// All that a model is: weights, config and card.
void same_model(const fs::path& a, const fs::path& b) {
  for (const char* file : {"model.safetensors", "config.json", "graft.json"}) {
    INFO(file);
    REQUIRE(fs::exists(a / file));
    CHECK(contents(a / file) == contents(b / file));
  }
}

template <class Call>
std::string refusal(const Call& call) {
  try {
    call();
  } catch (const graft::error& problem) {
    return problem.what();
  }
  return "none";
}

}  // namespace

TEST_CASE("join_experts: owners' mixtures side by side", "[mix]") {
  const scratch folder;
  const fs::path a = owner_model(folder.path / "a", "a", 2), b = owner_model(folder.path / "b", "b", 3),
                 c = owner_model(folder.path / "c", "c", 4), all = folder.path / "all";
  join_experts({{a, "", ""}, {b, "", ""}, {c, "", ""}}, all);
  const host_model joined = load_host_model(all), owner = load_host_model(b);
  REQUIRE(joined.info.config.shape.experts == 4);
  CHECK(joined.info.config.experts_per_token == 2);
  std::vector<expert_card> want = {{"public", ""}, {"a", "of a"}, {"b", "of b"}, {"c", "of c"}};
  CHECK(joined.info.card->experts == want);
  // Expert 2 is b's: FFN, row and bias.
  CHECK(detail::expert_difference(joined, 2, owner, 1).empty());
  CHECK(detail::expert_difference(joined, 0, owner, 0).empty());
  CHECK(!detail::expert_difference(joined, 3, owner, 1).empty());
  const tensor_entry* bias = joined.layout.find("model.layers.1.block_sparse_moe.gate.2.bias.weight");
  REQUIRE(bias != nullptr);
  CHECK(joined.values[static_cast<std::size_t>(bias->offset)] == -1.5f);

  // Without b is as if b had never been; with b again, last.
  remove_experts(all, {"b"}, folder.path / "without");
  join_experts({{a, "", ""}, {c, "", ""}}, folder.path / "never");
  same_model(folder.path / "without", folder.path / "never");
  join_experts({{folder.path / "without", "", ""}, {b, "", ""}}, folder.path / "again");
  join_experts({{a, "", ""}, {c, "", ""}, {b, "", ""}}, folder.path / "last");
  same_model(folder.path / "again", folder.path / "last");
}

TEST_CASE("remove_experts: a BTX mix of branches that share all but feed-forward layers", "[mix]") {
  const scratch folder;
  std::vector<branch_directory> branches;
  for (std::uint64_t i = 0; i < 3; ++i) {
    const std::string name(1, static_cast<char>('a' + i));
    branches.push_back({dense_model(folder.path / name, 2 + i), name, "domain of " + name});
  }
  directory_mix_options options;
  options.mix.seed = 5;
  options.rows_by_name = true;
  mix_directories(btx_recipe, branches, folder.path / "abc", options);
  mix_directories(btx_recipe, {branches[0], branches[2]}, folder.path / "ac", options);
  remove_experts(folder.path / "abc", {"b"}, folder.path / "without");
  same_model(folder.path / "without", folder.path / "ac");
  // A dense branch joins with a row drawn by its name.
  join_experts({{folder.path / "ac", "", ""}, branches[1]}, folder.path / "acb", {.seed = 5});
  mix_directories(btx_recipe, {branches[0], branches[2], branches[1]}, folder.path / "want", options);
  same_model(folder.path / "acb", folder.path / "want");

  // By place, as without the option, the rows of the mixes differ: the last of three is not the last of two.
  options.rows_by_name = false;
  mix_directories(btx_recipe, branches, folder.path / "abc", options);
  mix_directories(btx_recipe, {branches[0], branches[2]}, folder.path / "ac", options);
  remove_experts(folder.path / "abc", {"b"}, folder.path / "without");
  CHECK(contents(folder.path / "without" / "model.safetensors") != contents(folder.path / "ac" / "model.safetensors"));
}

TEST_CASE("mix_directories: plans of experts", "[mix]") {
  const scratch folder;
  const std::vector<branch_directory> branches = {{dense_model(folder.path / "a", 2), "math", "math"},
                                                  {dense_model(folder.path / "b", 3), "more-math", "math"},
                                                  {dense_model(folder.path / "c", 4), "code", "cpp"}};
  directory_mix_options options;
  const auto experts_of = [&] { return load_model_info(folder.path / "mix").card->experts; };
  using cards = std::vector<expert_card>;

  mix_directories(btx_recipe, branches, folder.path / "mix", options);
  CHECK(experts_of() == cards{{"math", "math"}, {"more-math", "math"}, {"code", "cpp"}});

  options.experts = counted_experts({1, 1, 2});
  mix_directories(btx_recipe, branches, folder.path / "mix", options);
  CHECK(experts_of() == cards{{"math", "math"}, {"more-math", "math"}, {"code.0", "cpp"}, {"code.1", "cpp"}});

  options.experts = split_experts(3, true);
  options.experts_per_token = 6;
  mix_directories(btx_recipe, branches, folder.path / "mix", options);
  const host_model split = load_host_model(folder.path / "mix");
  CHECK(split.info.config.shape.experts == 9);
  CHECK(split.info.config.shape.hidden == 4);
  CHECK(split.info.config.experts_per_token == 6);
  CHECK(experts_of()[8] == expert_card{"code.2", "cpp"});
  CHECK(split.layout.parameter_count() ==
        parameter_count(split.info.config.shape, mixture<top_k<2>, no_balancer, routed>{}));

  options.experts = blended_experts();
  options.experts_per_token = 2;
  mix_directories(btx_recipe, branches, folder.path / "mix", options);
  CHECK(experts_of()[1] == expert_card{"blend.1", ""});

  CHECK(refusal([&] { mix_directories(soup_recipe, branches, folder.path / "x", options); }) ==
        "mix: recipe soup does not keep feed-forward layers apart, so there are no experts to plan");
  options.experts_per_token = 4;
  CHECK(refusal([&] { mix_directories(btx_recipe, branches, folder.path / "x", options); }) ==
        "mix: expected experts_per_token from 1 to the number of experts, got experts_per_token=4, experts=3");
  CHECK(!fs::exists(folder.path / "x"));
}

// Files hold every expert's own width, nothing more, and a model of the layout mixed_width computes from them.
TEST_CASE("mix_directories: experts of different widths", "[mix]") {
  const scratch folder;
  const std::vector<branch_directory> branches = {{dense_model(folder.path / "a", 2, 12), "a", ""},
                                                  {dense_model(folder.path / "b", 3, 4), "b", ""},
                                                  {dense_model(folder.path / "c", 4, 7), "c", ""}};
  directory_mix_options options;
  CHECK(refusal([&] {
          mix_directories(btx_recipe, branches, folder.path / "mix", options);
        }).find("expected the same hidden width, got 12 and 4") != std::string::npos);
  options.experts = whole_experts();
  mix_directories(btx_recipe, branches, folder.path / "mix", options);
  const host_model mix = load_host_model(folder.path / "mix");
  CHECK(mix.info.config.shape.hidden == 12);
  CHECK(mix.info.card->layout->name == "mixed_width");
  CHECK(widths_of(*mix.info.card->layout) == expert_widths{12, 4, 7});
  const tensor_files files(folder.path / "mix");
  const located_tensor* w2 = files.find("model.layers.1.block_sparse_moe.experts.2.w2.weight");
  REQUIRE(w2 != nullptr);
  CHECK(w2->tensor->shape == std::vector<std::uint64_t>{8, 7});

  using mixture_type = mixture<top_k<2>, no_balancer, mixed_width>;
  mixture_type policies;
  policies.layout.experts_form.widths = widths_of(*mix.info.card->layout);
  context<cpu> ctx({.threads = 1});
  transformer<mixture_type, compute<fp32, cpu>> model(ctx, mix.info.config.shape, policies);
  load_parameters(folder.path / "mix", model.layout(), model.parameters().master().data);
  CHECK(model.layout().parameter_count() == mix.layout.parameter_count());
  const index_t rest = parameter_count(dense_shape) - 2 * 3 * 8 * 12 + 2 * 3 * 8;  // without FFNs, with routers
  CHECK(parameter_count(mix.info.config.shape, policies) == rest + 2 * 3 * 8 * (12 + 4 + 7));
  // Two of three experts on average: 2/3 of all.
  CHECK(active_parameter_count(mix.info.config.shape, policies) == rest + 2 * 2 * 8 * (12 + 4 + 7));
  std::vector<std::int32_t> tokens = {1, 2, 3, 4};
  std::vector<float> logits(4 * 300, 1e30f);
  model.logits(matrix_view<float>(logits.data(), 4, 300), matrix_view<const std::int32_t>(tokens.data(), 1, 4));
  CHECK(std::all_of(logits.begin(), logits.end(), [](float value) { return std::abs(value) < 1e3f; }));

  // Editing keeps each one's width; with one width left the layout is still the same.
  remove_experts(folder.path / "mix", {"a"}, folder.path / "bc");
  CHECK(widths_of(*load_host_model(folder.path / "bc").info.card->layout) == expert_widths{4, 7});
  join_experts({{folder.path / "bc", "", ""}, branches[0]}, folder.path / "bca");
  CHECK(widths_of(*load_host_model(folder.path / "bca").info.card->layout) == expert_widths{4, 7, 12});
}

TEST_CASE("mix_directories: a mix with adapters starts from the identity and is saved with it", "[mix]") {
  const scratch folder;
  const bool qk_norm = GENERATE(false, true);
  const std::vector<branch_directory> branches = {{dense_model(folder.path / "a", 2, 12, 1, qk_norm), "a", ""},
                                                  {dense_model(folder.path / "b", 3, 12, 1, qk_norm), "b", ""}};
  directory_mix_options options;
  options.plan.layout.name = GENERATE("adapted", "lora");
  mix_directories(btx_recipe, branches, folder.path / "mix", options);
  const host_model mix = load_host_model(folder.path / "mix");
  double sum = 0;
  int adapters = 0;
  for (const tensor_entry& entry : mix.layout.tensors) {
    if (entry.kind != role::adapter) continue;
    ++adapters;
    if (entry.name.find("_lora_a") != std::string::npos) continue;
    for (index_t i = 0; i < entry.size(); ++i) {
      const float value = mix.values[static_cast<std::size_t>(entry.offset + i)];
      CHECK((value == 0 || value == 1));
      sum += value;
    }
  }
  const bool adapted_layout = options.plan.layout.name == "adapted";
  CHECK(adapters == (adapted_layout ? 2 * 2 : 2 * 2 * 6));
  CHECK(sum == (adapted_layout ? 2 * 2 * 8 : 0));
}

// Every other block of experts, cut in two, beside a shared expert: what belongs to no expert is averaged.
TEST_CASE("mix_directories: dense blocks and a shared expert", "[mix]") {
  const scratch folder;
  const std::vector<branch_directory> branches = {{dense_model(folder.path / "a", 2), "a", ""},
                                                  {dense_model(folder.path / "b", 3), "b", ""}};
  directory_mix_options options;
  options.plan.layout.name = "shared";
  options.moe_period = 2;
  options.shared_hidden = 12;
  options.experts = split_experts(2);
  mix_directories(btx_recipe, branches, folder.path / "mix", options);
  mix_directories(soup_recipe, branches, folder.path / "soup");
  const host_model mix = load_host_model(folder.path / "mix"), soup = load_host_model(folder.path / "soup");
  CHECK((mix.info.config.shape.hidden == 6 && mix.info.config.shape.dense_hidden == 12));
  const auto equal = [&](const std::string& name, const std::string& soup_name) {
    const tensor_entry *a = mix.layout.find(name + ".weight"), *b = soup.layout.find(soup_name + ".weight");
    REQUIRE((a != nullptr && b != nullptr && a->size() == b->size()));
    return std::equal(mix.values.begin() + a->offset, mix.values.begin() + a->offset + a->size(),
                      soup.values.begin() + b->offset);
  };
  for (const std::string part : {"gate_proj", "up_proj", "down_proj"}) {
    CHECK(equal("model.layers.0.mlp." + part, "model.layers.0.mlp." + part));
    CHECK(equal("model.layers.1.block_sparse_moe.shared_expert." + part, "model.layers.1.mlp." + part));
  }
  CHECK(mix.layout.find("model.layers.0.block_sparse_moe.gate.weight") == nullptr);
  CHECK(mix.layout.find("model.layers.1.block_sparse_moe.experts.3.w1.weight") != nullptr);
  // A dense branch joins: what is no expert's must be the same, or is said to be dropped.
  options.experts = {};
  mix_directories(btx_recipe, branches, folder.path / "whole", options);
  const std::vector<branch_directory> joined = {{folder.path / "whole", "", ""}, {branches[0].folder, "c", ""}};
  CHECK(refusal([&] {
          join_experts(joined, folder.path / "more");
        }).find("ffn parameters that all branches share, but model.layers.0.mlp.gate_proj.weight") !=
        std::string::npos);
  join_experts(joined, folder.path / "more", {.drop_other_parameters = true});
  remove_experts(folder.path / "more", {"c"}, folder.path / "again");
  same_model(folder.path / "whole", folder.path / "again");
}

TEST_CASE("edit_experts: wrong input is refused with a sentence and nothing is written", "[mix]") {
  const scratch folder;
  const fs::path a = owner_model(folder.path / "a", "a", 2), b = owner_model(folder.path / "b", "b", 3),
                 other = owner_model(folder.path / "other", "a", 7), dense = dense_model(folder.path / "dense", 9),
                 apart = dense_model(folder.path / "apart", 9, 12, 8), out = folder.path / "out";
  const auto remove = [&](const fs::path& from, const std::vector<std::string>& names,
                          const edit_options& options = {}) {
    return refusal([&] { remove_experts(from, names, out, options); });
  };
  const auto join = [&](const std::vector<branch_directory>& models, const edit_options& options = {}) {
    return refusal([&] { join_experts(models, out, options); });
  };
  CHECK(remove(a, {"b"}) == "expected one of the experts public, a, got b");
  CHECK(remove(a, {"a", "public"}) == a.string() + ": expected to keep at least one expert, got all 2 to remove");
  CHECK(remove(a, {"a"}) ==
        "mix: expected experts_per_token of at most the number of experts, got experts_per_token=2, experts=1, give a "
        "lower one");
  CHECK(remove(dense, {"a"}) == dense.string() + ": expected a mixture, this model has no experts");
  CHECK(join({{a, "", ""}, {other, "", ""}}).find("both have an expert a, expected the same one, but they differ in") !=
        std::string::npos);
  CHECK(join({{dense, "d", ""}, {a, "", ""}}) == dense.string() + ": expected a mixture, this model has no experts");
  CHECK(
      join({{a, "", ""}, {apart, "d", ""}}).find("parameters that all branches share, but model.embed_tokens.weight") !=
      std::string::npos);
  CHECK(!fs::exists(out));
  // Allowed when said: the dense branch is one more expert, and the rest is the first model's.
  CHECK(join({{a, "", ""}, {apart, "d", ""}}, {.drop_other_parameters = true}) == "none");
  CHECK(load_model_info(out).config.shape.experts == 3);
  CHECK(remove(a, {"a"}, {.experts_per_token = 1}) == "none");
  same_model(out, out);
  CHECK(load_model_info(out).config.experts_per_token == 1);
}

}  // namespace edit_experts_tests
