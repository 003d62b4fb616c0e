// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Recipes on parameters alone: what is averaged, kept apart and drawn anew, and what is refused.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/mix/mix.hpp>
#include <graft/mix/trainable.hpp>
#include <graft/models/transformer.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

namespace mix_tests {

using namespace graft;

namespace {

using moe = mixture<top_k<2>, no_balancer, routed>;

transformer_shape seed_shape(bool tied = false, bool qk_norm = true) {
  return {.vocabulary = 11,
          .width = 8,
          .blocks = 2,
          .heads = 2,
          .kv_heads = 1,
          .head_dim = 4,
          .hidden = 12,
          .positions = 16,
          .tied = tied,
          .qk_norm = qk_norm};
}
parameter_layout dense_layout(const transformer_shape& shape) { return make_layout(transformer_specs(shape)); }
parameter_layout mixture_layout(transformer_shape shape, index_t experts) {
  shape.experts = experts;
  return make_layout(transformer_specs(shape, moe{}));
}

// Dense branches with memory. Magnitudes from 1e-20 to 1e20 among the values: a sum rounded too early shows.
template <class M>
struct branches {
  transformer_shape shape = seed_shape();
  parameter_layout layout = dense_layout(shape);
  std::vector<std::vector<M>> values;
  std::vector<mix_source<M>> sources;

  void add(std::vector<M> of, const std::string& name) {
    values.push_back(std::move(of));
    sources.clear();
    names.push_back(name);
    for (std::size_t i = 0; i < values.size(); ++i) sources.push_back({names[i], shape, "bytes", &layout, values[i]});
  }
  std::vector<M> draw(std::uint64_t seed) const {
    std::vector<M> of(static_cast<std::size_t>(layout.size));
    const random_source random{seed, random_stream::data};
    for (const tensor_entry& entry : layout.tensors)
      for (index_t i = 0; i < entry.size(); ++i) {
        const auto at = static_cast<std::uint64_t>(entry.offset + i);
        of[at] =
            static_cast<M>(random.normal(0, at) * std::pow(10.0, static_cast<double>(random.below(41, 1, at)) - 20.0));
      }
    return of;
  }
  std::vector<std::string> names;
};

template <class M>
bool same(const std::vector<M>& a, const std::vector<M>& b, const parameter_layout& layout) {
  return std::all_of(layout.tensors.begin(), layout.tensors.end(), [&](const tensor_entry& entry) {
    return std::equal(a.begin() + entry.offset, a.begin() + entry.offset + entry.size(), b.begin() + entry.offset);
  });
}

const float* tensor_of(const std::vector<float>& values, const parameter_layout& layout, const std::string& name) {
  const tensor_entry* entry = layout.find(name);
  REQUIRE(entry != nullptr);
  return values.data() + entry->offset;
}

}  // namespace

TEMPLATE_TEST_CASE("mix: a soup of identical models is that model, bit for bit", "[mix]", float, double) {
  const std::size_t count = GENERATE(1, 2, 3, 5, 7);
  branches<TestType> models;
  const auto seed = models.draw(1);
  for (std::size_t i = 0; i < count; ++i) models.add(seed, "copy");
  std::vector<TestType> soup(seed.size(), TestType(-1));
  mix<TestType>(soup_recipe, models.sources, models.layout, soup);
  CHECK(same(soup, seed, models.layout));
  mix_options weighted;
  for (std::size_t i = 0; i < count; ++i) weighted.weights.push_back(0.1 + 0.37 * static_cast<double>(i));
  std::fill(soup.begin(), soup.end(), TestType(-1));
  mix<TestType>(soup_recipe, models.sources, models.layout, soup, weighted);
  CHECK(same(soup, seed, models.layout));
}

TEST_CASE("mix: soups against naive averages", "[mix]") {
  branches<float> models;
  for (std::uint64_t i = 1; i <= 3; ++i) models.add(models.draw(i), "model " + std::to_string(i));
  const mix_options options =
      GENERATE(mix_options{}, mix_options{.weights = {3, 0, 1.5}}, mix_options{.weights = {0, 2, 0}});
  std::vector<float> soup(models.values[0].size());
  mix<float>(soup_recipe, models.sources, models.layout, soup, options);
  const std::vector<double> weights = options.weights.empty() ? std::vector<double>{1, 1, 1} : options.weights;
  const double sum = weights[0] + weights[1] + weights[2];
  for (const tensor_entry& entry : models.layout.tensors) {
    for (index_t i = entry.offset; i < entry.offset + entry.size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      long double want = 0, size = 0;
      for (std::size_t m = 0; m < 3; ++m) {
        want += static_cast<long double>(weights[m]) * models.values[m][at] / sum;
        size += static_cast<long double>(weights[m]) * std::abs(models.values[m][at]) / sum;
      }
      // One rounding to float, and a handful in fp64.
      REQUIRE(std::abs(static_cast<long double>(soup[at]) - want) <=
              1.001 * 0x1p-24 * std::abs(want) + 8 * 0x1p-53 * size + 1e-45);
      if (sum == 2) REQUIRE(soup[at] == models.values[1][at]);
    }
  }
}

TEST_CASE("mix: btx keeps the branches' feed-forward layers as experts, averages the rest, draws routers", "[mix]") {
  branches<float> models;
  for (std::uint64_t i = 1; i <= 3; ++i) models.add(models.draw(i), "model " + std::to_string(i));
  const parameter_layout target = mixture_layout(models.shape, 3);
  std::vector<float> soup(models.values[0].size()), mixed(static_cast<std::size_t>(target.size)), again(mixed.size()),
      other(mixed.size());
  mix<float>(soup_recipe, models.sources, models.layout, soup);
  mix<float>(btx_recipe, models.sources, target, mixed, {.seed = 4});
  mix<float>(btx_recipe, models.sources, target, again, {.seed = 4});
  mix<float>(btx_recipe, models.sources, target, other, {.seed = 5});
  CHECK(mixed == again);
  int experts = 0, averaged = 0, routers = 0;
  for (const tensor_entry& entry : target.tensors) {
    INFO(entry.name);
    const float* got = tensor_of(mixed, target, entry.name);
    if (entry.kind == role::router) {
      ++routers;
      CHECK(!std::equal(got, got + entry.size(), tensor_of(other, target, entry.name)));
      std::vector<float> drawn(static_cast<std::size_t>(entry.size()));
      draw_initial(entry, 4, drawn.data());
      CHECK(std::equal(drawn.begin(), drawn.end(), got));
      double square = 0;
      for (const float v : drawn) square += static_cast<double>(v) * v;
      CHECK(square > 0);
    } else if (entry.kind == role::ffn) {
      ++experts;
      const std::string layer = entry.name.substr(0, std::string("model.layers.0").size());
      const std::string part = entry.name.substr(entry.name.size() - 9);
      const std::string name = layer + ".mlp." +
                               (part == "w1.weight"   ? "gate_proj"
                                : part == "w3.weight" ? "up_proj"
                                                      : "down_proj") +
                               ".weight";
      CHECK(std::equal(got, got + entry.size(),
                       tensor_of(models.values[static_cast<std::size_t>(entry.expert)], models.layout, name)));
    } else {
      ++averaged;
      CHECK(std::equal(got, got + entry.size(), tensor_of(soup, models.layout, entry.name)));
    }
  }
  CHECK(experts == 2 * 3 * 3);
  CHECK(routers == 2);
  CHECK(averaged == 2 * 8 + 3);
}

TEST_CASE("mix: a recipe is roles and rules", "[mix]") {
  static_assert(soup_recipe.rule_for(role::ffn) == merge_rule::average);
  static_assert(btx_recipe.rule_for(role::ffn) == merge_rule::one_per_branch &&
                btx_recipe.rule_for(role::router) == merge_rule::fresh &&
                btx_recipe.rule_for(role::attention) == merge_rule::average &&
                btx_recipe.rule_for(role::embedding) == merge_rule::average &&
                btx_recipe.rule_for(role::norm) == merge_rule::average &&
                btx_recipe.rule_for(role::head) == merge_rule::average);
  CHECK(name_of(merge_rule::one_per_branch) == "one per branch");
  // A method of one's own: the average, but norms as they are drawn.
  constexpr recipe own = recipe{.name = "own"}.with(role::norm, merge_rule::fresh);
  branches<float> models;
  models.add(models.draw(1), "a");
  std::vector<float> out(models.values[0].size());
  CHECK_THROWS_WITH(
      mix<float>(own, models.sources, models.layout, out),
      "mix: tensor model.layers.0.input_layernorm.weight of a was used 0 times by recipe own, expected once");
}

// Mixing with and without a branch: what is kept apart does not change, and the order of branches is the order of
// experts.
TEST_CASE("mix: adding, removing and reordering branches of a btx mix", "[mix]") {
  branches<float> three, two;
  for (std::uint64_t i = 1; i <= 3; ++i) three.add(three.draw(i), "model " + std::to_string(i));
  two.add(three.values[0], "model 1");
  two.add(three.values[2], "model 3");
  const parameter_layout of_three = mixture_layout(three.shape, 3), of_two = mixture_layout(three.shape, 2);
  std::vector<float> a(static_cast<std::size_t>(of_three.size)), b(static_cast<std::size_t>(of_two.size)), c(a.size());
  mix<float>(btx_recipe, three.sources, of_three, a, {.weights = {1, 0, 1}});
  mix<float>(btx_recipe, two.sources, of_two, b);
  std::swap(three.sources[0], three.sources[1]);
  mix<float>(btx_recipe, three.sources, of_three, c, {.weights = {0, 1, 1}});
  for (const tensor_entry& entry : of_two.tensors) {
    if (entry.kind == role::router) continue;
    INFO(entry.name);
    const float* got = tensor_of(b, of_two, entry.name);
    std::string name = entry.name, swapped = entry.name;
    if (entry.expert >= 0) {
      const auto at = name.find("experts.") + 8;
      name[at] = entry.expert == 0 ? '0' : '2';
      swapped[at] = entry.expert == 0 ? '1' : '2';
    }
    CHECK(std::equal(got, got + entry.size(), tensor_of(a, of_three, name)));
    CHECK(std::equal(got, got + entry.size(), tensor_of(c, of_three, swapped)));
  }
}

TEST_CASE("mix: models that differ are refused with both values", "[mix]") {
  struct difference {
    void (*change)(transformer_shape&);
    const char* sentence;
  };
  const difference of = GENERATE(
      difference{[](transformer_shape& s) { s.vocabulary = 12; }, "the same vocabulary, got 11 and 12"},
      difference{[](transformer_shape& s) { s.width = 16; }, "the same width, got 8 and 16"},
      difference{[](transformer_shape& s) { s.blocks = 3; }, "the same number of blocks, got 2 and 3"},
      difference{[](transformer_shape& s) { s.heads = 4; }, "the same number of heads, got 2 and 4"},
      difference{[](transformer_shape& s) { s.kv_heads = 2; }, "the same number of key/value heads, got 1 and 2"},
      difference{[](transformer_shape& s) { s.head_dim = 8; }, "the same head_dim, got 4 and 8"},
      difference{[](transformer_shape& s) { s.hidden = 24; }, "the same hidden width, got 12 and 24"},
      difference{[](transformer_shape& s) { s.experts = 2; }, "the same number of experts, got 0 and 2"},
      difference{[](transformer_shape& s) { s.rope_theta = 500000; }, "the same rope_theta, got 10000 and 500000"},
      difference{[](transformer_shape& s) { s.scaling.factor = 8; }, "the same rope scaling factor, got 1 and 8"},
      difference{[](transformer_shape& s) { s.norm_eps = 1e-6; }, "the same norm_eps, got 1e-05 and 1e-06"},
      difference{[](transformer_shape& s) { s.tied = true; }, "the same tying of head and embedding, got 0 and 1"},
      difference{[](transformer_shape& s) { s.qk_norm = false; }, "the same QK-norm, got 1 and 0"});
  branches<float> models;
  models.add(models.draw(1), "seed");
  models.add(models.draw(2), "branch");
  of.change(models.sources[1].shape);
  std::vector<float> out(models.values[0].size());
  CHECK_THROWS_WITH(mix<float>(soup_recipe, models.sources, models.layout, out),
                    std::string("mix: seed and branch cannot be mixed: expected ") + of.sentence);
  models.sources[1].shape = models.shape;
  CHECK_NOTHROW(mix<float>(soup_recipe, models.sources, models.layout, out));
}

TEST_CASE("mix: other wrong input is refused with a sentence and nothing is lost silently", "[mix]") {
  branches<float> models;
  models.add(models.draw(1), "seed");
  models.add(models.draw(2), "branch");
  std::vector<float> out(4096);
  const auto soup = [&](const mix_options& options = {}) {
    mix<float>(soup_recipe, models.sources, models.layout, out, options);
  };

  models.sources[1].tokenizer = "words";
  CHECK_THROWS_WITH(soup(), "mix: seed and branch cannot be mixed: expected the same tokenizer, got bytes and words");
  models.sources[1].tokenizer = "bytes";
  models.sources[1].shape.scaling.original_positions = 4096;
  CHECK_THROWS_WITH(
      soup(),
      "mix: seed and branch cannot be mixed: expected the same rope scaling original_positions, got 8192 and 4096");
  models.sources[1].shape = models.shape;

  CHECK_THROWS_WITH(mix<float>(soup_recipe, {}, models.layout, out), "mix: expected at least one model, got none");
  CHECK_THROWS_WITH(soup({.weights = {1}}), "mix: expected one weight for each of 2 models, got 1");
  CHECK_THROWS_WITH(soup({.weights = {1, -1}}), "mix: expected weights of at least 0, got -1");
  CHECK_THROWS_WITH(soup({.weights = {0, 0}}), "mix: expected weights with a positive sum, got 0");
  CHECK_THROWS_AS(soup({.weights = {1, std::numeric_limits<double>::quiet_NaN()}}), error);
  CHECK_THROWS_AS(mix<float>(soup_recipe, models.sources, models.layout, std::span<float>(out).first(10)), error);

  // A tensor that the target needs and a branch lacks.
  parameter_layout lacking = models.layout;
  lacking.tensors.pop_back();
  models.sources[1].layout = &lacking;
  CHECK_THROWS_WITH(soup(), "mix: branch has no tensor lm_head.weight, which lm_head.weight is made from");
  // A tensor that a branch has and the target does not take.
  models.sources[1].layout = &models.layout;
  CHECK_THROWS_WITH(mix<float>(soup_recipe, models.sources, lacking, out),
                    "mix: tensor lm_head.weight of seed was used 0 times by recipe soup, expected once");
  // A tensor of another size under the same name.
  parameter_layout turned = models.layout;
  std::swap(turned.tensors.back().rows, turned.tensors.back().columns);
  models.sources[1].layout = &turned;
  CHECK_THROWS_WITH(soup(), "mix: tensor lm_head.weight of branch is 8 x 11, expected 11 x 8");
  models.sources[1].layout = &models.layout;

  // More experts than branches, and fewer.
  CHECK_THROWS_WITH(mix<float>(btx_recipe, models.sources, mixture_layout(models.shape, 3), out),
                    "mix: recipe btx keeps ffn parameters one per branch, but "
                    "model.layers.0.block_sparse_moe.experts.2.w1.weight is the share of expert 2 and "
                    "there are 2 models");
  CHECK_THROWS_WITH(
      mix<float>(btx_recipe, models.sources, mixture_layout(models.shape, 1), out),
      "mix: tensor model.layers.0.mlp.gate_proj.weight of branch was used 0 times by recipe btx, expected once");
  // A dense target has no place for experts.
  CHECK_THROWS_AS(mix<float>(btx_recipe, models.sources, models.layout, out), error);
}

TEST_CASE("mix: what is trained after a mix", "[mix]") {
  const parameter_layout layout = mixture_layout(seed_shape(), 3);
  CHECK(!trainable_after_mix(mix_training::all));  // no rule: everything
  const trainable_rule all_but_experts = trainable_after_mix(mix_training::all_but_experts),
                       routers = trainable_after_mix(mix_training::routers);
  int experts = 0, gates = 0;
  for (const tensor_entry& entry : layout.tensors) {
    const bool is_expert = entry.name.find(".experts.") != std::string::npos,
               is_gate = entry.name.find("block_sparse_moe.gate") != std::string::npos;
    CHECK(all_but_experts(entry) == !is_expert);
    CHECK(routers(entry) == is_gate);
    experts += is_expert;
    gates += is_gate;
  }
  CHECK(experts == 18);
  CHECK(gates == 2);
  CHECK(name_of(mix_training::all_but_experts) == "all-but-experts");
}

TEST_CASE("mix: a soup keeps the sign of zeros", "[mix]") {
  branches<float> models;
  std::vector<float> values = models.draw(1);
  values[0] = -0.0f;
  for (const char* name : {"a", "b", "c"}) models.add(values, name);
  std::vector<float> out(4096);
  mix<float>(soup_recipe, models.sources, models.layout, out);
  CHECK(std::signbit(out[0]));
  CHECK(out[0] == 0.0f);
}

}  // namespace mix_tests
