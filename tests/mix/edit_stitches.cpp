// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Experts taken out of and added to stitched models.

#include "catch.hpp"

#include <string>
#include <vector>

#include <graft/mix/edit_stitches.hpp>

#include "models/stitched_check.hpp"

namespace edit_stitches_tests {

using namespace graft;
using namespace graft::test;

namespace {

using stitched = stitched_of<>;

bool same_tensor(const stitched& a, const std::string& name_a, const stitched& b, const std::string& name_b) {
  const tensor_entry *x = a.layout().find(name_a), *y = b.layout().find(name_b);
  REQUIRE(x != nullptr);
  REQUIRE(y != nullptr);
  return x->size() == y->size() &&
         std::equal(a.parameters().master().data + x->offset, a.parameters().master().data + x->offset + x->size(),
                    b.parameters().master().data + y->offset);
}

}  // namespace

TEST_CASE("edit_stitches: without an expert the model is the one stitched without it", "[mix]") {
  context<cpu> ctx({.threads = 1});
  const token_batch batch(2, 6, 11);
  for (const char* name : {"hub_and_spokes", "into_hub", "stitch_at_end", "all_to_all"})
    for (const int hub : {0, 3})
      for (const int gone : {1, 2}) {
        CAPTURE(name, hub, gone);
        any_topology topology = any_topology::named(name);
        topology.set_option("hub", hub);
        const auto members = random_members(ctx, {8, 8, 8, 8});
        stitched model(ctx, members, topology);
        randomize(model, 5);
        const auto fewer = remove_stitched_expert(model, gone);
        CHECK(fewer->size() == 3);
        CHECK(fewer->plan().output == (hub > gone ? hub - 1 : hub));

        auto others = members;
        others.erase(others.begin() + gone);
        any_topology moved = topology;
        moved.set_option("hub", hub > gone ? hub - 1 : hub);
        stitched built(ctx, others, moved);
        copy_stitches(model, built, gone == 1 ? std::vector<int>{0, 2, 3} : std::vector<int>{0, 1, 3});
        const auto want = logits_of(built, batch);
        CHECK(same_bits(logits_of(*fewer, batch), want));
        CHECK(same_bits(logits_of(model, batch), want) == false);

        // The whole model computes the same when the expert does not run.
        std::vector<int> active;
        for (int i = 0; i < 4; ++i)
          if (i != gone) active.push_back(i);
        model.set_active(active);
        CHECK(same_bits(logits_of(model, batch), want));
      }
}

TEST_CASE("edit_stitches: what stays keeps its bits, what comes starts as stitches do", "[mix]") {
  context<cpu> ctx({.threads = 1});
  const token_batch batch(2, 6, 11);
  const auto members = random_members(ctx, {8, 8, 8});
  stitched model(ctx, {members[0], members[1]});
  randomize(model, 5);
  const auto more = add_stitched_expert(model, members[2]);
  CHECK(more->member(2) == members[2]);
  CHECK(same_tensor(*more, "stitches.1.gate.0.1.weight", model, "stitches.1.gate.0.1.weight"));
  CHECK(same_tensor(*more, "stitches.0.proj.1.0.weight", model, "stitches.0.proj.1.0.weight"));
  stitched fresh(ctx, members);
  fresh.initialize();
  CHECK(same_tensor(*more, "stitches.1.gate.0.2.weight", fresh, "stitches.1.gate.0.2.weight"));
  CHECK(same_tensor(*more, "stitches.1.proj.0.2.weight", fresh, "stitches.1.proj.0.2.weight"));
  CHECK(same_tensor(*more, "stitches.0.proj.2.0.weight", fresh, "stitches.0.proj.2.0.weight"));
  CHECK_FALSE(same_bits(logits_of(*more, batch), logits_of(model, batch)));
  // There and back.
  const auto back = remove_stitched_expert(*more, 2);
  CHECK(same_bits(logits_of(*back, batch), logits_of(model, batch)));
  CHECK(same_tensor(*back, "stitches.2.gate.0.0.weight", model, "stitches.2.gate.0.0.weight"));  // the idle block too
}

TEST_CASE("edit_stitches: what is refused", "[mix]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_members(ctx, {8, 8, 8});
  stitched model(ctx, members);
  CHECK_THROWS_WITH(remove_stitched_expert(model, 0),
                    "remove_stitched_expert: expected an expert from 0 to 2 other than the output 0, got 0");
  CHECK_THROWS_AS(remove_stitched_expert(model, 3), error);
  stitched two(ctx, {members[0], members[1]}, stitched_pair{});
  CHECK_THROWS_WITH(add_stitched_expert(two, members[2]), "pair: expected two members, got members=3");
  stitched four(ctx, members, any_topology{}, {.stitches = 4}), one(ctx, members, any_topology{}, {.stitches = 1});
  CHECK_THROWS_WITH(copy_stitches(one, four, {0, 1, 2}),
                    "copy_stitches: expected stitches.0.gate.1.0.weight of 8 x 8, got none");
  CHECK_THROWS_AS(copy_stitches(four, one, {0, 1}), error);
}

}  // namespace edit_stitches_tests
