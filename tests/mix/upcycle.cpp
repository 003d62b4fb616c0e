// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Sparse upcycling from one dense model: what is copied, what is drawn anew, and that the model computes what the dense
// one does where it should.

#include "catch.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <graft/mix/model_directories.hpp>
#include <graft/policies/router/softmax_top_k.hpp>

#include "mix/planned_mix.hpp"

namespace upcycle_tests {

using namespace graft;
using namespace graft::test;
namespace fs = std::filesystem;

namespace {

// K = 4 with the softmax over all experts as weights.
using unnormalised = mixture<softmax_top_k<4>, no_balancer, routed>;

constexpr std::pair<const char*, const char*> parts[] = {{"w1", "gate_proj"}, {"w3", "up_proj"}, {"w2", "down_proj"}};

mixed_result upcycled(const dense_branches& seed, const expert_planner& planner, const mix_options& options = {},
                      const char* row_key = nullptr) {
  std::vector<mixed_expert> plan = planner(seed.cards, seed.hidden);
  if (row_key != nullptr)
    for (mixed_expert& expert : plan) expert.row_key = row_key;
  index_t hidden = plan[0].pieces[0].end - plan[0].pieces[0].begin;
  if (plan[0].pieces[0].whole()) hidden = seed.hidden[0];
  return mixed(seed, plan, hidden, options, upcycle_recipe);
}

std::string mlp(index_t block, const std::string& part) {
  return "model.layers." + std::to_string(block) + ".mlp." + part;
}
std::string expert_name(index_t block, std::size_t expert) {
  return "model.layers." + std::to_string(block) + ".block_sparse_moe.experts." + std::to_string(expert);
}
// Whether element i of a part of an expert belongs to a hidden unit of the set.
bool belongs(const tensor<double>& values, const std::string& part, std::size_t i, const std::vector<bool>& units) {
  const auto at = static_cast<index_t>(i);
  return units[static_cast<std::size_t>(part == "w2" ? at % values.columns : at / values.columns)];
}

struct scratch {
  fs::path path = fs::temp_directory_path() / ("graft-upcycle-" + std::to_string(::getpid()));
  scratch() { fs::create_directories(path); }
  ~scratch() { fs::remove_all(path); }
};

// The branch as a folder. Values are rounded to what the file holds.
fs::path saved(dense_branches& seed, const fs::path& folder) {
  std::vector<float> values(seed.values[0].begin(), seed.values[0].end());
  std::copy(values.begin(), values.end(), seed.values[0].begin());
  model_card card;
  card.tokenizer = {"letters", 11};
  save_model(folder, {.shape = seed.shapes[0], .experts_per_token = 0}, seed.layouts[0], values.data(), card);
  return folder;
}
mixed_result read_back(const fs::path& folder) {
  const host_model model = load_host_model(folder);
  return {model.info.config.shape, model.layout, std::vector<double>(model.values.begin(), model.values.end())};
}

}  // namespace

TEST_CASE("upcycle: clones compute what the dense model computes", "[mix][upcycle]") {
  const dense_branches seed({12});
  const token_batch batch(2, 6, 11);
  const tensor<double> want = dense_logits(seed, 0, batch);
  const mixed_result clones = upcycled(seed, cloned_experts(8), {.seed = 3});
  REQUIRE(clones.shape.experts == 8);
  // Weights of the four experts of a token sum to one, whatever the router.
  CHECK(mismatch(logits_of<mixture_of<4>>(clones, batch), want, rounding) == "");
  // With equal logits the softmax over eight gives four of them 1/8 each: half of the layer, made up for by w2.
  CHECK(
      mismatch(logits_of<unnormalised>(
                   upcycled(seed, cloned_experts(8, granular_output_scale(8, 1, 4, false)), {.seed = 3}, "all"), batch),
               want, rounding) == "");
  CHECK(mismatch(logits_of<unnormalised>(clones, batch), want, rounding) != "");

  int copied = 0, experts = 0, rows = 0;
  for (const tensor_entry& entry : clones.layout.tensors) {
    const double* got = clones.values.data() + entry.offset;
    if (entry.kind == role::router) {
      ++rows;
      std::vector<double> drawn(static_cast<std::size_t>(entry.size()));
      draw_initial(entry, 3, drawn.data());
      CHECK(std::equal(drawn.begin(), drawn.end(), got));
      CHECK(drawn[0] != 0);
      continue;
    }
    const std::string name = entry.expert < 0 ? entry.name : detail::dense_name(entry.name);
    const tensor_entry* from = seed.layouts[0].find(name);
    REQUIRE(from != nullptr);
    CHECK(std::equal(got, got + entry.size(), seed.values[0].data() + from->offset));
    ++(entry.expert < 0 ? copied : experts);
  }
  CHECK((copied == 15 && experts == 48 && rows == 2));
}

TEST_CASE("upcycle: fine-grained clones with virtual groups compute what the dense model computes", "[mix][upcycle]") {
  const dense_branches seed({12});
  const token_batch batch(2, 6, 11);
  const tensor<double> want = dense_logits(seed, 0, batch);
  // Four copies of two shards, K = 4: a token goes to both shards of its two best copies.
  CHECK(granular_output_scale(4, 2, 4, true) == 2);
  CHECK(granular_output_scale(4, 2, 4, false) == 4);
  CHECK_THROWS_WITH(granular_output_scale(4, 2, 3, true),
                    "granular_output_scale: expected experts_per_token to be a multiple of granularity and at most "
                    "expansion times granularity, got experts_per_token=3, granularity=2, expansion=4");
  const mixed_result groups = upcycled(seed, granular_experts(4, 2, 2), {.seed = 3});
  CHECK(mismatch(logits_of<mixture_of<4>>(groups, batch), want, rounding) == "");
  CHECK(mismatch(logits_of<unnormalised>(upcycled(seed, granular_experts(4, 2, 4), {.seed = 3}, "all"), batch), want,
                 rounding) == "");
  // Rows of their own break the groups, and a token may miss a shard.
  std::vector<mixed_expert> apart = granular_experts(4, 2, 2)(seed.cards, seed.hidden);
  for (mixed_expert& expert : apart) expert.row_key = expert.name;
  CHECK(mismatch(logits_of<mixture_of<4>>(mixed(seed, apart, 6, {.seed = 3}, upcycle_recipe), batch), want, rounding) !=
        "");

  // The weight scale of the paper: (E G^2 / K)^(1/3) on all three matrices.
  const expert_planner scaled = scaled_granular_experts(4, 2, 4);
  CHECK(scaled.name == "scaled_granular=4,2,4");
  const mixed_result larger = upcycled(seed, scaled, {.seed = 3});
  const double scale = std::cbrt(4.0);
  for (const auto& [part, dense] : parts) {
    const tensor<double> is = larger.expert_part(1, 5, part), was = seed.matrix(0, mlp(1, dense));
    for (index_t u = 0; u < 6; ++u)  // expert 5: the second shard of the third copy
      for (index_t i = 0; i < 8; ++i)
        CHECK((std::string(part) == "w2" ? is.at(i, u) == scale * was.at(i, 6 + u)
                                         : is.at(u, i) == scale * was.at(6 + u, i)));
  }
}

TEST_CASE("upcycle: of drop-upcycled experts exactly the units said are drawn anew", "[mix][upcycle]") {
  dense_branches seed({12});
  // A mean that a normal distribution around zero would miss.
  for (const tensor_entry& entry : seed.layouts[0].tensors)
    if (entry.kind == role::ffn)
      for (index_t i = 0; i < entry.size(); ++i) seed.values[0][static_cast<std::size_t>(entry.offset + i)] += 0.5;
  const double share = GENERATE(0.5, 0.3, 1.0, 0.0);
  const mixed_result four = upcycled(seed, with_redrawn_units(cloned_experts(4), share), {.seed = 7});
  const mixed_result again = upcycled(seed, with_redrawn_units(cloned_experts(4), share), {.seed = 7});
  CHECK(four.values == again.values);
  std::set<std::vector<bool>> sets;
  double sum = 0, square = 0, drawn = 0;
  bool exact = true;
  for (index_t block = 0; block < 2; ++block)
    for (std::size_t e = 0; e < 4; ++e) {
      const std::vector<bool> units = redrawn_units(expert_name(block, e), 12, share, 7);
      CHECK(std::count(units.begin(), units.end(), true) == std::llround(12 * share));
      sets.insert(units);
      for (const auto& [part, dense] : parts) {
        const tensor<double> is = four.expert_part(block, e, part), was = seed.matrix(0, mlp(block, dense));
        double mean = 0, variance = 0;
        for (const double value : was.values) mean += value / 96;
        for (const double value : was.values) variance += (value - mean) * (value - mean) / 96;
        for (std::size_t i = 0; i < was.values.size(); ++i) {
          const bool redrawn = belongs(was, part, i, units);
          exact = exact && (is.values[i] != was.values[i]) == redrawn;
          if (!redrawn) continue;
          const double normal = (is.values[i] - mean) / std::sqrt(variance);
          sum += normal, square += normal * normal, ++drawn;
        }
      }
    }
  CHECK(exact);
  if (share == 0) return;
  // Eight sets of 12 over 6 or 12 over 4 units: an equal pair has a probability below 6 %, and the seed is fixed.
  CHECK(sets.size() == (share == 1 ? 1u : 8u));
  // Standard normal numbers: four standard deviations of their mean and of their mean square.
  CHECK(std::abs(sum / drawn) <= 4 / std::sqrt(drawn));
  CHECK(std::abs(square / drawn - 1) <= 4 * std::sqrt(2 / drawn));

  // Other seeds draw other units and values; more experts leave those before them as they are.
  const mixed_result other = upcycled(seed, with_redrawn_units(cloned_experts(4), share), {.seed = 8});
  CHECK(other.expert_part(0, 0, "w1").values != four.expert_part(0, 0, "w1").values);
  const mixed_result six = upcycled(seed, with_redrawn_units(cloned_experts(6), share), {.seed = 7});
  CHECK(six.expert_part(1, 3, "w2").values == four.expert_part(1, 3, "w2").values);
}

TEST_CASE("upcycle: noise is put in the place of elements or added to them", "[mix][upcycle]") {
  const dense_branches seed({12});
  const double share = GENERATE(0.25, 1.0);
  const expert_noise noise{.share = share, .stddev = 0.5};
  const mixed_result replaced = upcycled(seed, with_noise(cloned_experts(3), noise), {.seed = 9});
  const mixed_result added = upcycled(seed, with_noise(cloned_experts(3), {share, 0.5, true}), {.seed = 9});
  int changed = 0;
  double square = 0;
  bool same_noise = true;
  for (index_t block = 0; block < 2; ++block)
    for (std::size_t e = 0; e < 3; ++e)
      for (const auto& [part, dense] : parts) {
        const tensor<double> was = seed.matrix(0, mlp(block, dense));
        const tensor<double> of_noise = replaced.expert_part(block, e, part), sum = added.expert_part(block, e, part);
        for (std::size_t i = 0; i < was.values.size(); ++i) {
          const bool differs = of_noise.values[i] != was.values[i];
          changed += differs;
          // The same elements and the same numbers either way.
          same_noise = same_noise && sum.values[i] == (differs ? was.values[i] + of_noise.values[i] : was.values[i]);
          if (differs) square += of_noise.values[i] * of_noise.values[i];
        }
      }
  CHECK(same_noise);
  // Of 3 x 2 x 288 elements: four standard deviations of a binomial are below 84; of the mean square: sqrt(2 / n) / 4.
  CHECK(std::abs(changed - share * 1728) <= (share == 1 ? 0 : 84));
  CHECK(std::abs(square / changed - 0.25) <= 4 * 0.25 * std::sqrt(2.0 / changed));
  CHECK(replaced.expert_part(0, 0, "w1").values != replaced.expert_part(0, 1, "w1").values);
  CHECK((expert_noise{}.share == 0.5 && expert_noise{}.stddev == 0.02 && !expert_noise{}.added));
}

TEST_CASE("upcycle: every second block through a directory, dense blocks are copied", "[mix][upcycle]") {
  const scratch folder;
  dense_branches seed({12});
  const fs::path dense = saved(seed, folder.path / "seed");
  directory_mix_options options;
  options.mix.seed = 5;
  options.experts_per_token = 4;
  options.moe_period = 2;
  options.experts = parse_expert_planner("granular=4,2,2");
  mix_directories(upcycle_recipe, {{dense, "seed", "law"}}, folder.path / "upcycled", options);
  const mixed_result mix = read_back(folder.path / "upcycled");
  CHECK((mix.shape.experts == 8 && mix.shape.moe_period == 2 && mix.shape.hidden == 6 && mix.shape.dense_hidden == 12));
  const model_info info = load_model_info(folder.path / "upcycled");
  REQUIRE((info.card && info.card->experts.size() == 8));
  CHECK((info.card->experts[7].name == "seed.3.1" && info.card->experts[7].domain == "law"));
  for (const auto& [part, name] : parts) {
    CHECK(dense_branches::matrix_of(mix.layout, mix.values, mlp(0, name)).values ==
          seed.matrix(0, mlp(0, name)).values);
    CHECK(mix.layout.find(expert_name(0, 0) + "." + part + ".weight") == nullptr);
    CHECK(mix.layout.find(mlp(1, name) + ".weight") == nullptr);
  }
  const token_batch batch(2, 6, 11);
  CHECK(mismatch(logits_of<mixture_of<4>>(mix, batch), dense_logits(seed, 0, batch), rounding) == "");
  // The same again, bit for bit; not with another seed.
  mix_directories(upcycle_recipe, {{dense, "seed", "law"}}, folder.path / "again", options);
  CHECK(read_back(folder.path / "again").values == mix.values);
  options.mix.seed = 6;
  mix_directories(upcycle_recipe, {{dense, "seed", "law"}}, folder.path / "other", options);
  CHECK(read_back(folder.path / "other").values != mix.values);

  // A copy that all tokens use: with the layout shared_averaged, 1 / (K + 1) of it and K / (K + 1) of the clones.
  options = {};
  options.experts = cloned_experts(3);
  options.plan.layout.name = "shared_averaged";
  options.shared_hidden = 12;
  mix_directories(upcycle_recipe, {{dense, "seed", ""}}, folder.path / "shared", options);
  const mixed_result shared = read_back(folder.path / "shared");
  for (const auto& [part, name] : parts) {
    const std::string of_block = "model.layers.1.block_sparse_moe.shared_expert.";
    CHECK(dense_branches::matrix_of(shared.layout, shared.values, of_block + name).values ==
          seed.matrix(0, mlp(1, name)).values);
    CHECK(shared.expert_part(1, 2, part).values == seed.matrix(0, mlp(1, name)).values);
  }
}

TEST_CASE("upcycle: planners as a command line says them", "[mix][upcycle]") {
  for (const char* text : {"clones=8", "clones=8,2", "scaled_granular=4,2,4", "clones=8+drop=0.5",
                           "granular=4,2,1,1+drop=0.25+noise=0.5,0.25", "whole+added_noise=1,0.5"})
    CHECK(parse_expert_planner(text).name == text);
  CHECK(parse_expert_planner("clones=2+drop").name == with_redrawn_units(cloned_experts(2)).name);
  CHECK(parse_expert_planner("clones=2+noise").name == with_noise(cloned_experts(2)).name);
  CHECK(parse_expert_planner("clones=2+noise=0.25").name == with_noise(cloned_experts(2), {.share = 0.25}).name);
  const auto plan = parse_expert_planner("granular=2,3,1.5+drop=0.25+added_noise=0.75,0.5")({{"seed", "x"}}, {12});
  REQUIRE(plan.size() == 6);
  const mixed_expert& last = plan.back();
  CHECK((last.name == "seed.1.2" && last.domain == "x" && last.row_key == "seed.1" && last.output_scale == 1.5));
  CHECK((last.redrawn_share == 0.25 && last.noise_share == 0.75 && last.noise_stddev == 0.5 && last.noise_added));
  for (const char* wrong : {"clones", "clones=0", "clones=2,1,1", "clones=2+", "clones=2+whole", "clones=2+drop=",
                            "clones=2+drop=0.5,1", "drop=0.5", "+drop", "scaled_granular=4,2", "scaled_granular=4,2,3",
                            "clones=2+noise=1,1,1", "clones=2+noise=0.1+added_noise=0.2", "clones=2+drop=0.5+drop=0.5"})
    CHECK_THROWS_AS(parse_expert_planner(wrong), error);

  const dense_branches seed({12}), other({12});
  CHECK_THROWS_WITH(upcycled(seed, with_redrawn_units(cloned_experts(2), 1.5)),
                    "mix: expected a redrawn_share from 0 to 1 for expert branch0.0, got 1.5");
  CHECK_THROWS_AS(upcycled(seed, with_noise(cloned_experts(2), {.share = 2})), error);
  // Two models that are not one.
  const dense_branches two({12, 12});
  CHECK_THROWS_WITH(upcycled(two, cloned_experts(2)),
                    "mix: recipe upcycle wants embedding parameters that all branches share, but "
                    "model.embed_tokens.weight of branch1 is not that of branch0");
}

}  // namespace upcycle_tests
