// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Stitched models: gradients, what they compute where the answer is known, what does not run, cached generation,
// counts.

#include "catch.hpp"

#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <graft/models/counts.hpp>
#include <graft/models/generation.hpp>

#include "model_gradients.hpp"
#include "stitched_check.hpp"

namespace stitched_transformer_tests {

using namespace graft;
using namespace graft::test;

namespace {

using stitched = stitched_of<>;
using dense = stitched::member_type;
static_assert(CachedModel<stitched>);

// The seed and the stitches of the paper: 264M trained, 11.0B in all.
constexpr transformer_shape paper_seed{.vocabulary = 128000,
                                       .width = 3072,
                                       .blocks = 20,
                                       .heads = 24,
                                       .kv_heads = 1,
                                       .head_dim = 128,
                                       .hidden = 8192,
                                       .positions = 8192};
constexpr index_t paper_stitches =
    count_parameters(stitched_specs(hub_and_spokes{}.plan(20, 4, 4), {3072, 3072, 3072, 3072}));
static_assert(paper_stitches == 264'241'152);
static_assert(4 * parameter_count(paper_seed) + paper_stitches == 11'023'134'720);

void poison(dense& member, const std::string& part) {
  const auto arena = member.parameters().master();
  index_t count = 0;
  for (const tensor_entry& entry : member.layout().tensors) {
    if (entry.name.find(part) == std::string::npos) continue;
    for (index_t i = 0; i < entry.size(); ++i) arena[entry.offset + i] = std::numeric_limits<double>::quiet_NaN();
    ++count;
  }
  REQUIRE(count > 0);
}

double difference(const tensor<double>& a, const tensor<double>& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.values.size(); ++i) {
    const double apart = std::abs(a.values[i] - b.values[i]);
    if (!(apart <= most)) most = apart;
  }
  return most;
}

// Experts one after another: the last into the one before, and so on. The last expert is read after two blocks alone.
struct chain {
  static constexpr const char* name = "chain";
  stitch_plan plan(index_t blocks, index_t, index_t members) const {
    stitch_plan plan = empty_stitch_plan(name, blocks, members - 1, members, 0);
    for (index_t k = 0; k < members - 1; ++k) {
      stitch_merge merge;
      merge.into = merge.gated_by = members - 2 - k;
      merge.from.push_back(members - 1 - k);
      plan.steps[static_cast<std::size_t>(k)].merges.push_back(merge);
    }
    return plan;
  }
};

}  // namespace

TEST_CASE("stitched: gradients of whole models, every topology", "[models]") {
  context<cpu> ctx({.threads = 1});
  for (const std::string& name : any_topology::names())
    for (const index_t hub : {0, 1}) {
      CAPTURE(name, hub);
      any_topology topology = any_topology::named(name);
      topology.set_option("hub", static_cast<double>(hub));
      const std::vector<index_t> widths(static_cast<std::size_t>(members_for(name)), 8);
      const bool three = name == "hub_and_spokes" && hub == 0;  // a number that does not divide the blocks
      stitched model(ctx, random_members(ctx, widths, three ? 4 : 2), topology,
                     {.stitches = name == "stitch_at_end" ? 1 : (three ? 3 : 2), .dropout = 0.2});
      randomize(model, 5);
      CHECK(model_mismatch(model) == "");
    }
}

TEST_CASE("stitched: gradients with members of other widths, raw states and a subset", "[models]") {
  context<cpu> ctx({.threads = 1});
  const stitch_options options{.stitches = 2, .dropout = 0.2, .carry_raw_expert_state = true};
  for (const char* name : {"hub_and_spokes", "into_hub", "all_to_all"}) {
    CAPTURE(name);
    stitched model(ctx, random_members(ctx, {8, 4, 12}, 2), any_topology::named(name), options);
    randomize(model, 5);
    CHECK(model_mismatch(model) == "");
    model.set_active({2});
    CHECK(model_mismatch(model) == "");
  }
  stitched raw(ctx, random_members(ctx, {8, 8, 8}, 2), into_hub{}, options);
  randomize(raw, 5);
  CHECK(model_mismatch(raw) == "");
  stitched_of<fp64, chain> experts(ctx, random_members(ctx, {8, 8, 8}), chain{});
  randomize(experts, 5);
  CHECK(model_mismatch(experts) == "");
}

TEST_CASE("stitched: models that agree are the hub, whatever the gates", "[models]") {
  context<cpu> ctx({.threads = 1});
  const token_batch batch(2, 6, 11);
  const auto hub = random_members(ctx, {8})[0];
  const auto want = logits_of(*hub, batch);
  for (const std::string& name : any_topology::names()) {
    CAPTURE(name);
    stitched model(ctx, std::vector<std::shared_ptr<dense>>(static_cast<std::size_t>(members_for(name)), hub),
                   any_topology::named(name));
    model.initialize();
    CHECK(same_bits(logits_of(model, batch), want));
    const auto arena = model.parameters().master();
    const random_source draw{4, random_stream::data};
    for (const tensor_entry& entry : model.layout().tensors)
      for (index_t i = 0; entry.name.find(".gate.") != std::string::npos && i < entry.size(); ++i)
        arena[entry.offset + i] = draw.normal(1, static_cast<std::uint64_t>(entry.offset + i));
    CHECK(same_bits(logits_of(model, batch), want));
    // And the projections matter where they are not the identity.
    randomize(model, 5);
    CHECK(difference(logits_of(model, batch), want) > 1e-3);
  }
}

TEST_CASE("stitched: with no expert active the hub is left alone", "[models]") {
  context<cpu> ctx({.threads = 1});
  const token_batch batch(2, 6, 11);
  const auto members = random_members(ctx, {8, 8, 8});
  for (const char* name : {"hub_and_spokes", "all_to_all"}) {
    any_topology topology = any_topology::named(name);
    topology.set_option("hub", 2);
    stitched model(ctx, members, topology);
    randomize(model, 5);
    const auto all = logits_of(model, batch);
    model.set_active({});
    CHECK(same_bits(logits_of(model, batch), logits_of(*members[2], batch)));
    model.activate_all();
    CHECK(same_bits(logits_of(model, batch), all));
  }
}

TEST_CASE("stitched: a pair is a hub and one expert, with the roles of either", "[models]") {
  context<cpu> ctx({.threads = 1});
  const token_batch batch(2, 6, 11);
  const auto members = random_members(ctx, {8, 8});
  stitched one(ctx, {members[1], members[0]}, hub_and_spokes{});
  stitched two(ctx, members, stitched_pair{.hub = 1});
  randomize(one, 5);
  for (const tensor_entry& entry : two.layout().tensors) {
    std::string name = entry.name;  // "stitches.0.gate.0.1.weight"
    for (const std::size_t back : {8u, 10u}) name[name.size() - back] = name[name.size() - back] == '0' ? '1' : '0';
    const tensor_entry* source = one.layout().find(name);
    REQUIRE(source != nullptr);
    std::copy_n(one.parameters().master().data + source->offset, entry.size(),
                two.parameters().master().data + entry.offset);
  }
  CHECK(same_bits(logits_of(one, batch), logits_of(two, batch)));
  CHECK(one.layout().parameter_count() == two.layout().parameter_count() + 2 * 64);  // two blocks that nothing reads
}

TEST_CASE("stitched: what nothing reads does not run", "[models]") {
  context<cpu> ctx({.threads = 1});
  const token_batch batch(2, 6, 11);
  const auto members = random_members(ctx, {8, 8, 8});
  {
    stitched_of<fp64, chain> model(ctx, members, chain{});
    randomize(model, 5);
    const auto want = logits_of(model, batch);
    for (const char* part : {"layers.2.", "layers.3.", "model.norm", "lm_head"}) poison(*members[2], part);
    for (const char* part : {"model.norm", "lm_head"}) poison(*members[1], part);
    CHECK(same_bits(logits_of(model, batch), want));
    poison(*members[2], "layers.1.");
    CHECK(std::isnan(logits_of(model, batch).values[0]));
  }
  {
    stitched model(ctx, random_members(ctx, {8, 8, 8}));
    randomize(model, 5);
    model.set_active({1});
    CHECK(model.active(0));
    CHECK_FALSE(model.active(2));
    const auto want = logits_of(model, batch);
    poison(*model.member(2), "model.");
    CHECK(same_bits(logits_of(model, batch), want));
    model.activate_all();
    CHECK(std::isnan(logits_of(model, batch).values[0]));
  }
}

TEST_CASE("stitched: memory of a step", "[models]") {
  // One stitch at the end keeps nothing of the blocks; four keep three quarters of them.
  const token_batch batch(4, 16, 11);
  const auto peak = [&](index_t blocks, const any_topology& topology, index_t stitches) {
    context<cpu> ctx({.threads = 1});
    stitched model(ctx, random_members(ctx, {8, 8}, blocks), topology, {.stitches = stitches});
    model.initialize();
    model.parameters().set_trainable({});
    model.forward_backward(batch.input(), batch.target(), {});
    const std::size_t first = ctx.workspace().peak_bytes(), requests = ctx.workspace().requests();
    model.forward_backward(batch.input(), batch.target(), {});
    model.forward_backward(batch.input(), batch.target(), {});
    CHECK(ctx.workspace().requests() <= requests + 1);  // one chunk in place of several
    CHECK(ctx.workspace().live_bytes() == 0);
    return first;
  };
  CHECK(peak(12, stitch_at_end{}, 1) == peak(2, stitch_at_end{}, 1));
  CHECK(peak(12, into_hub{}, 4) > peak(12, into_hub{}, 2));
  // The stitches are all that has gradients: an arena of their size, and none in the members.
  context<cpu> ctx({.threads = 1});
  const auto members = random_members(ctx, {8, 8, 8});
  stitched model(ctx, members);
  model.parameters().set_trainable({});
  CHECK(model.layout().parameter_count() == 4 * (3 + 2) * 64);
  CHECK(model.parameters().trained_parameter_count() == (4 * (3 + 2) - 2) * 64);  // without the idle blocks
  CHECK(model.parameters().gradients().extent(0) == model.layout().size);
  CHECK(model.layout().size == 4 * (3 + 2) * 64);  // blocks of 64: no gaps
  CHECK(model.parameter_count() == 3 * members[0]->layout().parameter_count() + 4 * 5 * 64);
  for (const auto& member : members) CHECK(member->parameters().gradients().extent(0) == 0);
}

TEST_CASE("stitched: cached and uncached passes give the same logits and tokens", "[models]") {
  context<cpu> ctx({.threads = 1});
  const token_batch batch(1, 12, 11);
  const auto tokens = reshape(batch.input(), 12);
  for (const std::string& name : any_topology::names()) {
    CAPTURE(name);
    const std::vector<index_t> widths(static_cast<std::size_t>(members_for(name)), 8);
    stitched model(ctx, random_members(ctx, widths), any_topology::named(name));
    randomize(model, 5);
    REQUIRE(model.can_cache());
    auto cache = model.make_cache(16);
    std::vector<double> got(11), want(11);
    index_t done = 0;
    for (const index_t count : {5, 1, 1, 3, 1, 1}) {
      model.extend(cache, tokens.rows(done, done + count), vector_view<double>(got.data(), 11));
      done += count;
      CHECK(cache.length == done);
      model.next_token_logits(matrix_view<double>(want.data(), 1, 11), reshape(tokens.rows(0, done), index_t{1}, done));
      // Sums of at most 16 terms in another order, through four blocks.
      for (std::size_t v = 0; v < 11; ++v) CHECK(std::abs(got[v] - want[v]) < 1e-11);
    }
    generation_options options{.tokens = 30, .temperature = 0.9};
    const auto cached = generate(model, {1, 2, 3}, options);
    options.use_cache = false;
    CHECK(cached == generate(model, {1, 2, 3}, options));
    CHECK(cached.size() == 30);
  }
  // Experts that came in after the cache was made have nothing in it.
  stitched model(ctx, random_members(ctx, {8, 8, 8}));
  model.initialize();
  model.set_active({1});
  auto cache = model.make_cache(16);
  std::vector<double> logits(11);
  model.extend(cache, tokens.rows(0, 3), vector_view<double>(logits.data(), 11));
  model.activate_all();
  CHECK_THROWS_WITH(model.extend(cache, tokens.rows(3, 4), vector_view<double>(logits.data(), 11)),
                    "extend: expected 3 positions in the cache of member 2, got 0: other experts were active, make a "
                    "new cache");
  auto small = model.make_cache(2);
  CHECK_THROWS_AS(model.extend(small, tokens.rows(0, 3), vector_view<double>(logits.data(), 11)), error);
}

TEST_CASE("stitched: losses, gate values and dropout of a pass", "[models]") {
  context<cpu> ctx({.threads = 1});
  const token_batch batch(2, 6, 11);
  stitched model(ctx, random_members(ctx, {8, 8, 8}), any_topology{}, {.dropout = 0.5});
  randomize(model, 5);
  std::vector<double> losses(12);
  model.token_losses(vector_view<double>(losses.data(), 12), batch.input(), batch.target());
  const double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
  CHECK(std::abs(model.metrics().loss_sum - sum) < 1e-12);
  CHECK(losses[6] == 0);  // no target
  const auto logits = logits_of(model, batch).wide();
  const auto p = reference_softmax(logits);
  for (index_t t = 0; t < 12; ++t)
    if (batch.targets[static_cast<std::size_t>(t)] >= 0)
      CHECK(std::abs(losses[static_cast<std::size_t>(t)] +
                     std::log(p.at(t, batch.targets[static_cast<std::size_t>(t)]))) < 1e-12);

  // Training passes drop logits, others do not; the same pass twice adds the same gradients.
  model.parameters().set_trainable({});
  const auto loss_at = [&](bool training, index_t step) {
    model.clear_metrics();
    model.forward_backward(batch.input(), batch.target(), {.at = {.seed = 1, .step = step, .training = training}});
    return model.metrics().loss_sum;
  };
  CHECK(std::abs(loss_at(false, 0) - sum) < 1e-12);
  CHECK(std::abs(loss_at(true, 0) - sum) > 1e-6);
  CHECK(loss_at(true, 0) == loss_at(true, 0));
  CHECK(loss_at(true, 0) != loss_at(true, 1));

  std::vector<double> values(4 * 12 * 9);
  model.gate_values(view<double, 4>(values.data(), 4, 12, 3, 3), batch.input());
  for (std::size_t row = 0; row < 4 * 12 * 3; ++row) {
    const std::size_t k = row / 36, into = row % 3;
    const bool written = (k % 2 == 1) == (into == 0);
    const double total = values[row * 3] + values[row * 3 + 1] + values[row * 3 + 2];
    CHECK(std::abs(total - (written ? 1 : 0)) < 1e-12);
  }
}

TEST_CASE("stitched: experts by the scores of a router", "[models]") {
  CHECK(highest_scoring_experts({0.5, 0.1, 0.9, 0.4}, 2) == std::vector<int>{2, 3});
  CHECK(highest_scoring_experts({0.5, 0.1, 0.9, 0.4}, 2, 2) == std::vector<int>{0, 3});
  CHECK(highest_scoring_experts({0, 1, 1, 1}, 2) == std::vector<int>{1, 2});
  CHECK(highest_scoring_experts({0, 1}, 0).empty());
  CHECK_THROWS_AS(highest_scoring_experts({0, 1}, 2), error);
}

TEST_CASE("stitched: what is refused", "[models]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_members(ctx, {8, 8, 8});
  CHECK_THROWS_WITH(stitched(ctx, {members[0]}), "stitched_transformer: expected two to 16 members, got 1");
  CHECK_THROWS_WITH(stitched(ctx, {members[0], nullptr}), "stitched_transformer: expected members, got a null pointer");
  CHECK_THROWS_WITH(
      stitched(ctx, {members[0], random_members(ctx, {8}, 3)[0]}),
      "stitched_transformer: expected members of one vocabulary and number of blocks, got 11 tokens and 4 "
      "blocks, and 11 tokens and 3 blocks");
  CHECK_THROWS_WITH(stitched(ctx, members, any_topology{}, {.dropout = 1}),
                    "stitched_transformer: expected a dropout in [0, 1), got 1");
  CHECK_THROWS_WITH(stitched(ctx, random_members(ctx, {8, 12})),
                    "stitched_transformer: expected members of one width where a member goes on as its projection, got "
                    "widths 12 and 8. Set carry_raw_expert_state");
  CHECK_NOTHROW(stitched(ctx, random_members(ctx, {8, 12}), stitch_at_end{}));
  CHECK_THROWS_WITH(stitched(ctx, members, any_topology{}, {.stitches = 5}),
                    "hub_and_spokes: expected from one stitch to as many as blocks, got stitches=5, blocks=4");
  stitched model(ctx, members);
  CHECK_THROWS_WITH(model.set_active({3}), "set_active: expected different members from 0 to 2, got 3");
  CHECK_THROWS_AS(model.set_active({1, 1}), error);
  const token_batch batch(1, 4, 11);
  CHECK_THROWS_WITH(model.forward_backward(batch.input(), batch.target(), {}),
                    "forward_backward: no gradients are allocated, call parameters().set_trainable first");
}

}  // namespace stitched_transformer_tests
