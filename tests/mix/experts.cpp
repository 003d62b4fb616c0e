// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Plans of experts: split, blended, several of a domain, upcycled; what they add up to, unit by unit and in whole
// models.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <graft/mix/card_layout.hpp>

#include "mix/planned_mix.hpp"

namespace experts_tests {

using namespace graft;
using namespace graft::test;

TEST_CASE("mix experts: the chunks of a split branch add up to it", "[mix][experts]") {
  const dense_branches branches({12, 12});
  const index_t chunks = GENERATE(1, 2, 3, 12);
  const bool rescale = GENERATE(false, true);
  const auto plan = split_experts(chunks, rescale)(branches.cards, branches.hidden);
  REQUIRE(plan.size() == static_cast<std::size_t>(2 * chunks));
  CHECK(plan[static_cast<std::size_t>(chunks)].name == "branch1.0");
  const mixed_result mix = mixed(branches, plan, 12 / chunks);
  const tensor<double> x = tensor<double>::random(5, 8, 3);
  const double scale = rescale ? static_cast<double>(chunks) : 1.0;
  for (index_t block = 0; block < 2; ++block)
    for (std::size_t b = 0; b < 2; ++b) {
      const std::string layer = "model.layers." + std::to_string(block) + ".mlp.";
      const tensor<double> w1 = branches.matrix(b, layer + "gate_proj"), w3 = branches.matrix(b, layer + "up_proj"),
                           w2 = branches.matrix(b, layer + "down_proj");
      tensor<double> sum(5, 8);
      index_t unit = 0;
      for (index_t c = 0; c < chunks; ++c) {
        const std::size_t expert = b * static_cast<std::size_t>(chunks) + static_cast<std::size_t>(c);
        CHECK(plan[expert].domain == branches.cards[b].domain);
        add_to(sum, mix.expert_output(block, expert, x));
        // Unit by unit, bit for bit.
        const tensor<double> part1 = mix.expert_part(block, expert, "w1"), part3 = mix.expert_part(block, expert, "w3"),
                             part2 = mix.expert_part(block, expert, "w2");
        for (index_t u = 0; u < part1.rows; ++u, ++unit)
          for (index_t i = 0; i < 8; ++i)
            REQUIRE((part1.at(u, i) == w1.at(unit, i) && part3.at(u, i) == w3.at(unit, i) &&
                     part2.at(i, u) == scale * w2.at(i, unit)));
      }
      REQUIRE(unit == 12);
      tensor<double> want = ffn(x, w1, w3, w2);
      for (double& value : want.values) value *= scale;
      CHECK(mismatch(sum, want, rounding) == "");
    }
}

TEST_CASE("mix experts: blended experts add up to the sum of the branches", "[mix][experts]") {
  const dense_branches branches({12, 12, 12});
  const auto plan = blended_experts()(branches.cards, branches.hidden);
  const mixed_result mix = mixed(branches, plan, 12);
  const tensor<double> x = tensor<double>::random(5, 8, 3);
  for (index_t block = 0; block < 2; ++block) {
    const std::string layer = "model.layers." + std::to_string(block) + ".mlp.";
    tensor<double> blended(5, 8), whole(5, 8);
    for (std::size_t n = 0; n < 3; ++n) {
      add_to(blended, mix.expert_output(block, n, x));
      add_to(whole, ffn(x, branches.matrix(n, layer + "gate_proj"), branches.matrix(n, layer + "up_proj"),
                        branches.matrix(n, layer + "down_proj")));
    }
    CHECK(mismatch(blended, whole, rounding) == "");
  }
  // Expert 1 is chunk 1 of each branch, in their order.
  const tensor<double> w1 = mix.expert_part(0, 1, "w1");
  for (std::size_t b = 0; b < 3; ++b)
    for (index_t u = 0; u < 4; ++u)
      CHECK(w1.at(static_cast<index_t>(b) * 4 + u, 2) ==
            branches.matrix(b, "model.layers.0.mlp.gate_proj").at(4 + u, 2));
  CHECK((plan[2].name == "blend.2" && plan[2].domain.empty()));
}

TEST_CASE("mix experts: whole models of split, upcycled and fine-grained copies of a seed compute what it computes",
          "[mix][experts]") {
  const dense_branches copies({12, 12}, true);
  const token_batch batch(2, 6, 11);
  const tensor<double> want = dense_logits(copies, 0, batch);
  // Weights of all experts sum to one; every chunk counts a quarter whatever the router says only if all rows agree.
  {
    auto plan = split_experts(2, true)(copies.cards, copies.hidden);
    for (mixed_expert& expert : plan) expert.row_key = "all";
    CHECK(mismatch(logits_of<mixture_of<4>>(mixed(copies, plan, 6, {.seed = 3}), batch), want, rounding) == "");
  }
  {  // Copies of whole experts, any router.
    const auto plan = counted_experts({3, 1})(copies.cards, copies.hidden);
    CHECK((plan[0].name == "branch0.0" && plan[2].name == "branch0.2" && plan[3].name == "branch1"));
    CHECK(plan[1].domain == "domain0");
    CHECK(mismatch(logits_of<mixture_of<2>>(mixed(copies, plan, 12, {.seed = 3}), batch), want, rounding) == "");
  }
  {  // Two copies of two shards: a token goes to both shards of one copy, with weight 1/2 each.
    const std::vector<expert_card> one(copies.cards.begin(), copies.cards.begin() + 1);
    const auto plan = granular_experts(2, 2, 2.0)(one, {12});
    CHECK(plan[3].name == "branch0.1.1");
    dense_branches seed({12});
    const mixed_result fine = mixed(seed, plan, 6, {.seed = 3});
    CHECK(mismatch(logits_of<mixture_of<2>>(fine, batch), want, rounding) == "");
    const tensor<double> rows =
        dense_branches::matrix_of(fine.layout, fine.values, "model.layers.1.block_sparse_moe.gate");
    for (index_t i = 0; i < 8; ++i) {
      CHECK((rows.at(0, i) == rows.at(1, i) && rows.at(2, i) == rows.at(3, i)));
      CHECK(rows.at(0, i) != rows.at(2, i));
    }
  }
}

TEST_CASE("mix experts: noise redraws a share of the elements of copies, the first stays", "[mix][experts]") {
  const dense_branches seed({12});
  const double share = GENERATE(0.25, 1.0);
  const mixed_result mix = mixed(seed, counted_experts({3}, share, 0.5)(seed.cards, seed.hidden), 12, {.seed = 9});
  const mixed_result again = mixed(seed, counted_experts({3}, share, 0.5)(seed.cards, seed.hidden), 12, {.seed = 9});
  CHECK(mix.values == again.values);
  int changed[3] = {}, total = 0;
  double square = 0;
  for (index_t block = 0; block < 2; ++block)
    for (const auto& [part, name] : {std::pair{"w1", "gate_proj"}, {"w3", "up_proj"}, {"w2", "down_proj"}}) {
      const tensor<double> was = seed.matrix(0, "model.layers." + std::to_string(block) + ".mlp." + name);
      for (std::size_t e = 0; e < 3; ++e) {
        const tensor<double> is = mix.expert_part(block, e, part);
        for (std::size_t i = 0; i < was.values.size(); ++i) {
          const bool differs = is.values[i] != was.values[i];
          changed[e] += differs;
          if (differs) square += is.values[i] * is.values[i];
        }
      }
      total += static_cast<int>(was.values.size());
      CHECK(mix.expert_part(block, 1, part).values != mix.expert_part(block, 2, part).values);
    }
  CHECK(changed[0] == 0);
  REQUIRE(total == 576);
  // Four standard deviations of a binomial of 576 draws: below 48.
  for (const int e : {1, 2}) CHECK(std::abs(changed[e] - share * total) <= 48);
  // The mean square of n normal numbers of variance 1/4 is off by sqrt(2/n)/4; n is at least 190.
  const double drawn = changed[1] + changed[2];
  CHECK(std::abs(square / drawn - 0.25) <= 4 * 0.25 * std::sqrt(2.0 / drawn));
}

TEST_CASE("mix experts: rows by name do not depend on the other experts", "[mix][experts]") {
  const dense_branches branches({12, 12, 12});
  auto plan = whole_experts()(branches.cards, branches.hidden);
  for (mixed_expert& expert : plan) expert.row_key = expert.name;
  const mixed_result three = mixed(branches, plan, 12, {.seed = 4});
  plan.erase(plan.begin() + 1);
  const mixed_result two = mixed(branches, plan, 12, {.seed = 4, .left_out = {{1, -1}}});
  const std::string name = "model.layers.1.block_sparse_moe.gate";
  const tensor<double> a = dense_branches::matrix_of(three.layout, three.values, name),
                       b = dense_branches::matrix_of(two.layout, two.values, name);
  for (index_t i = 0; i < 8; ++i)
    CHECK((a.at(0, i) == b.at(0, i) && a.at(2, i) == b.at(1, i) && a.at(1, i) != b.at(1, i)));
}

TEST_CASE("mix experts: wrong plans are refused with a sentence", "[mix][experts]") {
  const dense_branches branches({12, 12});
  const auto plan_of = [&](const expert_planner& planner) { return planner(branches.cards, branches.hidden); };
  CHECK_THROWS_WITH(plan_of(split_experts(5)),
                    "split_experts: expected a number of chunks that divides the hidden width, got chunks=5, hidden "
                    "width 12 of branch0");
  CHECK_THROWS_WITH(plan_of(counted_experts({1})), "counted_experts: expected one count for each of 2 branches, got 1");
  CHECK_THROWS_WITH(plan_of(counted_experts({1, 0})),
                    "counted_experts: expected at least one expert of branch1, got 0");
  CHECK_THROWS_AS(plan_of(granular_experts(2, 5)), error);
  CHECK_THROWS_AS(blended_experts()(std::vector<expert_card>(5), std::vector<index_t>(5, 12)), error);

  auto plan = plan_of(whole_experts());
  const auto refused = [&](index_t hidden = 12) {
    try {
      mixed(branches, plan, hidden);
    } catch (const error& problem) {
      return std::string(problem.what());
    }
    return std::string("none");
  };
  CHECK(refused() == "none");
  CHECK(refused(10) == "mix: tensor model.layers.0.mlp.gate_proj.weight of branch0 is 12 x 8, expected 10 x 8");
  plan[1].name = "branch0";
  CHECK(refused() == "mix: expected experts of different names, got branch0 twice");
  plan[1].name = "b";
  plan[1].pieces[0].end = 8;
  CHECK(refused() == "mix: the pieces of expert b have 8 hidden units, the new model's expert has 12");
  plan[1].pieces.push_back({{1}, 6, 10});
  CHECK(refused() ==
        "mix: hidden unit 10 of model.layers.0.mlp.gate_proj.weight of branch1 is in no expert of the plan");
  plan[1].pieces[1] = {{1}, 8, 13};
  CHECK(refused() == "mix: expert b takes hidden units 8 to 13 of branch1, which has 12");
  plan[1].pieces[1] = {{7}, 8, 12};
  CHECK(refused() == "mix: the plan speaks of branch 7, but there are 2 models");
  plan[1].pieces.clear();
  CHECK(refused() == "mix: expert b is made of nothing");
  plan.pop_back();
  CHECK(refused() ==
        "mix: tensor model.layers.0.mlp.gate_proj.weight of branch1 was used 0 times by recipe btx, expected once");
}

TEST_CASE("mix: shared parameters must agree bit for bit", "[mix][experts]") {
  dense_branches copies({12, 12}, true);
  const auto plan = whole_experts()(copies.cards, copies.hidden);
  transformer_shape shape = copies.shapes[0];
  shape.experts = 2;
  const parameter_layout layout = layout_of(shape);
  std::vector<double> out(static_cast<std::size_t>(layout.size)), averaged(out.size());
  mix<double>(flex_olmo_recipe, copies.sources, layout, out, {.seed = 2, .experts = plan});
  mix<double>(btx_recipe, copies.sources, layout, averaged, {.seed = 2, .experts = plan});
  CHECK(out == averaged);  // of dense branches the rows are new, and equal models average to themselves
  copies.values[1][static_cast<std::size_t>(copies.layouts[1].find("model.norm.weight")->offset + 3)] += 1e-9;
  CHECK_THROWS_WITH(mix<double>(flex_olmo_recipe, copies.sources, layout, out, {.experts = plan}),
                    "mix: recipe flex_olmo wants norm parameters that all branches share, but model.norm.weight of "
                    "branch1 is not that of branch0");
}

TEST_CASE("mix experts: planners as a command line says them", "[mix][experts]") {
  for (const char* text : {"whole", "blend", "split=2", "rescaled_split=3", "counts=2,1,1"})
    CHECK(parse_expert_planner(text).name == text);
  CHECK(parse_expert_planner("granular=2,4").name == "granular=2,4,1,1");
  CHECK(parse_expert_planner("granular=2,4,1.5,0.5").name == "granular=2,4,1.5,0.5");
  const std::vector<expert_card> branches = {{"a", "x"}, {"b", ""}};
  const auto plan = parse_expert_planner("rescaled_split=3")(branches, {12, 6});
  REQUIRE(plan.size() == 6);
  CHECK((plan[4].name == "b.1" && plan[4].output_scale == 3 && plan[4].pieces[0].begin == 2));
  CHECK(parse_expert_planner("counts=1,2")(branches, {12, 6})[2].name == "b.1");
  CHECK(!expert_planner{});
  for (const char* wrong : {"", "split", "split=", "split=0", "split=1.5", "split=2,2", "split=x", "whole=1", "blend=2",
                            "counts=", "counts", "counts=1,,2", "granular=2", "granular=2,2,1,1,1", "soup"})
    CHECK_THROWS_AS(parse_expert_planner(wrong), error);
}

}  // namespace experts_tests
