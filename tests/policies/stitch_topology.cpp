// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Topologies of stitches: the laws for every model, positions and order as in the paper, choice by name.

#include "catch.hpp"

#include <string>
#include <vector>

#include <graft/policies/stitch_topology/any_topology.hpp>

#include "laws/stitch_topology_laws.hpp"

namespace stitch_topology_tests {

using namespace graft;
using namespace graft::test;

namespace {

std::vector<index_t> positions_of(const stitch_plan& plan) {
  std::vector<index_t> positions;
  for (const stitch_step& step : plan.steps) positions.push_back(step.after);
  return positions;
}

// '>' for a stitch into the output alone, '<' for one into the others.
std::string directions_of(const stitch_plan& plan) {
  std::string text;
  for (const stitch_step& step : plan.steps) {
    const bool into_output = step.merges.size() == 1 && step.merges[0].into == plan.output;
    text += into_output && step.merges[0].gate == stitch_gate::softmax ? '>' : '<';
  }
  return text;
}

// A chain: the last member is read into the one before it, and so on. Keeps the laws, and has a default only.
struct chain {
  const char* name = "chain";
  stitch_plan plan(index_t blocks, index_t stitches, index_t members) const {
    GRAFT_CHECK(stitches == members - 1 && stitches <= blocks, "chain: expected a stitch for each expert");
    stitch_plan plan = empty_stitch_plan(name, blocks, stitches, members, 0);
    for (index_t k = 0; k < stitches; ++k) {
      stitch_merge merge;
      merge.into = merge.gated_by = members - 2 - k;
      merge.from.push_back(members - 1 - k);
      plan.steps[static_cast<std::size_t>(k)].merges.push_back(merge);
    }
    return plan;
  }
};

}  // namespace

TEST_CASE("stitch_topology: the laws of stitch topologies", "[policies]") {
  stitch_topology_laws(hub_and_spokes{});
  stitch_topology_laws(hub_and_spokes{.hub = 1});
  stitch_topology_laws(into_hub{});
  stitch_topology_laws(into_hub{.hub = 1});
  stitch_topology_laws(stitch_at_end{});
  stitch_topology_laws(stitch_at_end{.hub = 1});
  stitch_topology_laws(stitched_pair{});
  stitch_topology_laws(stitched_pair{.hub = 1});
  stitch_topology_laws(all_to_all{});
  stitch_topology_laws(all_to_all{.hub = 1});
  stitch_topology_laws(chain{});
  for (const std::string& name : any_topology::names()) stitch_topology_laws(any_topology::named(name));
}

TEST_CASE("stitch_topology: positions and order of the paper", "[policies]") {
  // Twenty blocks and four stitches: after 5, 10, 15, 20, the first and third into the experts.
  const stitch_plan paper = hub_and_spokes{}.plan(20, 4, 4);
  CHECK(positions_of(paper) == std::vector<index_t>{5, 10, 15, 20});
  CHECK(directions_of(paper) == "<><>");
  CHECK(hub_and_spokes{}.plan(20, 0, 4) == paper);
  CHECK(directions_of(hub_and_spokes{}.plan(20, 10, 4)) == "<><><><><>");
  CHECK(directions_of(hub_and_spokes{}.plan(20, 3, 4)) == "><>");
  CHECK(positions_of(hub_and_spokes{}.plan(22, 4, 4)) == std::vector<index_t>{5, 10, 15, 22});  // 4 does not divide 22
  CHECK(positions_of(hub_and_spokes{}.plan(6, 4, 2)) == std::vector<index_t>{1, 2, 3, 6});
  CHECK(positions_of(hub_and_spokes{}.plan(3, 0, 2)) == std::vector<index_t>{1, 2, 3});  // fewer blocks than four
  CHECK(directions_of(into_hub{}.plan(20, 4, 4)) == ">>>>");
  CHECK(positions_of(stitch_at_end{}.plan(20, 0, 4)) == std::vector<index_t>{20});
  CHECK(directions_of(stitch_at_end{}.plan(20, 0, 4)) == ">");
  CHECK(directions_of(stitched_pair{}.plan(20, 4, 2)) == "<><>");
  CHECK(stitch_at_end{}.plan(7, 1, 3).steps == into_hub{}.plan(7, 1, 3).steps);
  CHECK(hub_and_spokes{}.plan(7, 1, 3).steps == into_hub{}.plan(7, 1, 3).steps);

  // What each stitch reads.
  const stitch_plan other_hub = hub_and_spokes{.hub = 1}.plan(4, 2, 3);
  CHECK(other_hub.output == 1);
  REQUIRE(other_hub.steps[0].merges.size() == 2);
  CHECK(other_hub.steps[0].idle_gate == 1);
  CHECK(other_hub.steps[0].merges[1].into == 2);
  CHECK(other_hub.steps[0].merges[1].gated_by == 1);
  CHECK(other_hub.steps[0].merges[1].from == std::vector<index_t>{1});
  CHECK_FALSE(other_hub.steps[0].merges[1].rewrites);
  CHECK(other_hub.steps[1].merges[0].from == std::vector<index_t>{0, 2});
  CHECK(other_hub.steps[1].merges[0].rewrites);
  CHECK(stitched_pair{}.plan(4, 2, 2).steps[0].idle_gate == -1);

  const stitch_plan all = all_to_all{.hub = 2}.plan(4, 2, 3);
  REQUIRE(all.steps[0].merges.size() == 3);
  CHECK(all.steps[0].merges[1].from == std::vector<index_t>{0, 2});
  CHECK(all.steps[0].merges[1].gated_by == 1);
  REQUIRE(all.steps[1].merges.size() == 1);
  CHECK(all.steps[1].merges[0].into == 2);
}

TEST_CASE("stitch_topology: experts whose last stitch lies behind do not run", "[policies]") {
  // into_hub reads every expert to the end; the experts of a chain drop out one after another.
  CHECK(states_read(into_hub{}.plan(4, 2, 3), 1) == std::vector<char>{1, 1, 1});
  CHECK(states_read(chain{}.plan(6, 2, 3), 0) == std::vector<char>{1, 1, 1});
  CHECK(states_read(chain{}.plan(6, 2, 3), 1) == std::vector<char>{1, 1, 0});
  CHECK(states_read(chain{}.plan(6, 2, 3), 2) == std::vector<char>{1, 0, 0});
}

TEST_CASE("stitch_topology: what is refused", "[policies]") {
  CHECK_THROWS_WITH(hub_and_spokes{}.plan(4, 5, 3),
                    "hub_and_spokes: expected from one stitch to as many as blocks, got stitches=5, blocks=4");
  CHECK_THROWS_WITH(into_hub{.hub = 3}.plan(4, 2, 3), "into_hub: expected hub from 0 to 2, got hub=3");
  CHECK_THROWS_WITH(into_hub{}.plan(4, 2, 1), "into_hub: expected at least two members, got 1");
  CHECK_THROWS_WITH(stitch_at_end{}.plan(4, 2, 3), "stitch_at_end: expected one stitch, got stitches=2");
  CHECK_THROWS_WITH(stitched_pair{}.plan(4, 2, 3), "pair: expected two members, got members=3");

  stitch_plan plan = hub_and_spokes{}.plan(4, 2, 3);
  std::swap(plan.steps[0].merges, plan.steps[1].merges);  // the pseudo-code's order
  std::swap(plan.steps[0].idle_gate, plan.steps[1].idle_gate);
  CHECK_THROWS_WITH(
      check_stitch_plan(plan, "mine"),
      "mine: expected the last stitch to write member 0, the output, behind block 4, got one that does not");
  plan = into_hub{}.plan(4, 1, 3);
  plan.steps[0].merges[0].from = {1};
  CHECK_THROWS_WITH(check_stitch_plan(plan, "mine"),
                    "mine: expected every member to reach the output, got none of member 2");
  plan.steps[0].after = 3;
  CHECK_FALSE(last_stitch_writes_output(plan));
  for (const std::vector<index_t>& from : {std::vector<index_t>{0}, {1, 1}, {2, 1}, {3}, {}}) {
    plan = into_hub{}.plan(4, 1, 3);
    plan.steps[0].merges[0].from = from;
    CHECK_FALSE(merges_are_possible(plan));
  }
}

TEST_CASE("stitch_topology: choice by name", "[policies]") {
  CHECK(any_topology::names() ==
        std::vector<std::string>{"hub_and_spokes", "into_hub", "stitch_at_end", "pair", "all_to_all"});
  any_topology topology = any_topology::named("all_to_all");
  CHECK(std::string(topology.name) == "all_to_all");
  CHECK(topology.plan(4, 2, 3) == all_to_all{}.plan(4, 2, 3));
  topology.set_option("hub", 2);
  CHECK(topology.plan(4, 2, 3) == all_to_all{.hub = 2}.plan(4, 2, 3));
  CHECK(topology.options() == std::vector<std::pair<std::string, double>>{{"hub", 2.0}});
  CHECK(any_topology{}.plan(4, 2, 3) == hub_and_spokes{}.plan(4, 2, 3));
  CHECK_THROWS_WITH(topology.set_option("spokes", 2), "all_to_all: expected one of the options hub, got spokes");
  CHECK_THROWS_WITH(
      any_topology::named("star"),
      "expected one of the topologies hub_and_spokes, into_hub, stitch_at_end, pair, all_to_all, got star");
}

}  // namespace stitch_topology_tests
