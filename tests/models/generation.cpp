// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Generation: a cache gives what a pass over the whole context gives, at every length, for every kind of model; both
// ways make the same text, also past the end of the context; what cannot be cached is computed anew.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include <graft/layers/any_mixture.hpp>
#include <graft/models/generation.hpp>
#include <graft/policies/expert_layout/capacity.hpp>
#include <graft/policies/router/context_router.hpp>
#include <graft/policies/router/hash_router.hpp>
#include <graft/policies/router/sample_top_1.hpp>

#include "model_check.hpp"

namespace generation_tests {

using namespace graft;
using namespace graft::test;

namespace {

using exact = compute<fp64, cpu>;
using single = compute<fp32, cpu>;
using dense = dense_transformer<exact>;
using two_experts = transformer<mixture_of<2>, exact>;
using hashed = moe_transformer<hash_router<2>, no_balancer, routed, exact>;
using sampled = moe_transformer<sample_top_1<1>, no_balancer, routed, exact>;
using contextual = moe_transformer<context_top_1, no_balancer, routed, exact>;

template <class Model>
transformer_shape shape_for() {
  return small_shape(Model::mixture_type::present ? 3 : 0);
}

// Two passes over the same numbers in another order: some hundred sums of terms of about 1 in a row.
template <class M>
constexpr double tolerance = 2000 * unit_roundoff<M>;

template <class Model>
void check_every_length(Model& model, index_t length, const std::vector<index_t>& steps) {
  using M = typename Model::M;
  const index_t vocabulary = model.shape().vocabulary;
  const token_batch batch(1, length, vocabulary);
  auto cache = model.make_cache(length);
  index_t wrong = 0, at = 0;
  for (std::size_t i = 0; at < length; ++i) {
    const index_t count = std::min(i < steps.size() ? steps[i] : 1, length - at);
    tensor<M> got(1, vocabulary, 99), want(1, vocabulary, -99);
    const matrix_view<const std::int32_t> all = batch.input();
    model.extend(cache, vector_view<const std::int32_t>(all.data + at, count), got.vector());
    at += count;
    CHECK(cache.length == at);
    model.next_token_logits(want.matrix(), matrix_view<const std::int32_t>(all.data, 1, at));
    for (index_t v = 0; v < vocabulary; ++v)
      wrong += !(std::abs(got.at(0, v) - want.at(0, v)) <= tolerance<M> * (1 + std::abs(want.at(0, v))));
  }
  CHECK(wrong == 0);
}

template <class Model>
std::vector<std::int32_t> text_of(Model& model, index_t prompt, generation_options options, bool use_cache) {
  options.use_cache = use_cache;
  return generate(model, token_batch(1, prompt, 11).inputs, options);
}

// Greedy and sampled; within the 16 positions, past them, and from a prompt that is longer.
template <class Model>
void check_same_text(Model& model) {
  for (const double temperature : {0.0, 0.7})
    for (const index_t prompt : {1, 5, 16, 23}) {
      CAPTURE(temperature, prompt);
      const generation_options options{.tokens = 40, .temperature = temperature, .seed = 3};
      const auto text = text_of(model, prompt, options, true);
      CHECK(text.size() == 40);
      CHECK(text == text_of(model, prompt, options, false));
      if (temperature > 0) CHECK(std::set<std::int32_t>(text.begin(), text.end()).size() > 2);
    }
}

// Counts what a model is asked for.
template <class Model>
struct counted {
  using M = typename Model::M;
  using space = typename Model::space;
  using cache_type = typename Model::cache_type;
  Model& model;
  std::vector<index_t> extended{}, recomputed{};  // tokens of each call
  auto& context() { return model.context(); }
  const transformer_shape& shape() const { return model.shape(); }
  bool can_cache() const { return model.can_cache(); }
  cache_type make_cache(index_t limit) { return model.make_cache(limit); }
  void extend(cache_type& cache, view<const std::int32_t, 1, space> tokens, view<M, 1, space> logits) {
    extended.push_back(tokens.extent(0));
    model.extend(cache, tokens, logits);
  }
  void next_token_logits(view<M, 2, space> logits, view<const std::int32_t, 2, space> inputs) {
    recomputed.push_back(inputs.size());
    model.next_token_logits(logits, inputs);
  }
};

}  // namespace

TEMPLATE_TEST_CASE("generation: a cache gives the logits of the whole context at every length", "[models]", dense,
                   two_experts, hashed) {
  context<cpu> ctx({.threads = 1});
  transformer_shape shape = shape_for<TestType>();
  shape.tied = GENERATE(false, true);
  shape.qk_norm = shape.tied;
  TestType model(ctx, shape);
  randomize(model, 1);
  CHECK(model.can_cache());
  check_every_length(model, 12, {});
  check_every_length(model, 15, {6, 1, 3});
}

// Two rows or more go to a library, one does not; so do keys of more than one run.
TEST_CASE("generation: the cache in fp32, over more keys than a run", "[models]") {
  context<cpu> ctx({.threads = 2});
  transformer_shape shape = small_shape(3);
  shape.positions = 300;
  transformer<mixture_of<2>, single> model(ctx, shape);
  randomize(model, 1, 0.15);
  check_every_length(model, 260, {125, 1, 1, 1, 1, 1, 126, 1, 1});
}

TEST_CASE("generation: the random numbers of a router are those of the token's position", "[models]") {
  context<cpu> ctx({.threads = 1});
  moe_transformer<sample_top_1<1>, no_balancer, routed, exact>::mixture_type mixture;
  mixture.router.score.sampled_evaluation = true;
  sampled model(ctx, small_shape(3), mixture);
  randomize(model, 1);
  check_every_length(model, 16, {3});
  check_same_text(model);
}

TEMPLATE_TEST_CASE("generation: cached and uncached make the same text", "[models]", dense, two_experts) {
  context<cpu> ctx({.threads = 2});
  TestType model(ctx, shape_for<TestType>());
  randomize(model, 1);
  check_same_text(model);
}

TEST_CASE("generation: what reads its context is computed anew", "[models]") {
  context<cpu> ctx({.threads = 1});
  contextual model(ctx, small_shape(3));
  randomize(model, 1);
  CHECK(!model.can_cache());
  auto cache = model.make_cache(4);
  const token_batch batch(1, 3, 11);
  tensor<double> logits(1, 11);
  CHECK_THROWS_WITH(model.extend(cache, vector_view<const std::int32_t>(batch.inputs.data(), 3), logits.vector()),
                    Catch::Contains("expected a mixture that reads each token alone"));
  counted<contextual> asked{model};
  CHECK(text_of(asked, 5, {.tokens = 6, .temperature = 0}, true) ==
        text_of(model, 5, {.tokens = 6, .temperature = 0}, false));
  CHECK(asked.extended.empty());
  CHECK(asked.recomputed == std::vector<index_t>{5, 6, 7, 8, 9, 10});

  using capped = mixture<top_k<1>, no_balancer, capacity<routed>>;
  STATIC_REQUIRE(capped::reads_context());
  STATIC_REQUIRE(!mixture_of<2>::reads_context());
  CHECK(!any_mixture<exact>(mixture_of<2>{}).reads_context());
  CHECK(any_mixture<exact>(mixture<context_top_1, no_balancer, routed>{}).reads_context());
}

TEST_CASE("generation: any_mixture is cached as what it holds", "[models]") {
  context<cpu> ctx({.threads = 1});
  transformer<any_mixture<exact>, exact> model(ctx, small_shape(3), any_mixture<exact>(mixture_of<2>{}));
  randomize(model, 1);
  CHECK(model.can_cache());
  check_every_length(model, 9, {4});
}

TEST_CASE("generation: the context starts again with its last half, and the prompt is run once", "[models]") {
  context<cpu> ctx({.threads = 1});
  dense model(ctx, small_shape());
  randomize(model, 1);
  counted<dense> asked{model};
  text_of(asked, 13, {.tokens = 14}, true);
  // 16 positions: 13 tokens, three more, then the last 8 of 17, and so on until 16 are full again.
  CHECK(asked.extended == std::vector<index_t>{13, 1, 1, 1, 8, 1, 1, 1, 1, 1, 1, 1, 1, 8});
  counted<dense> whole{model};
  text_of(whole, 13, {.tokens = 14}, false);
  CHECK(whole.recomputed == std::vector<index_t>{13, 14, 15, 16, 8, 9, 10, 11, 12, 13, 14, 15, 16, 8});
  counted<dense> longer{model};
  text_of(longer, 40, {.tokens = 2}, true);
  CHECK(longer.extended == std::vector<index_t>{8, 1});

  context_window narrow{.limit = 1};
  CHECK(!narrow.grow(1));
  CHECK(narrow.grow(2));
  CHECK(narrow.begin == 1);
}

TEST_CASE("generation: ids of padding rows are never made, the end token ends", "[models]") {
  context<cpu> ctx({.threads = 1});
  dense model(ctx, small_shape());
  randomize(model, 1);
  const generation_options all{.tokens = 60, .temperature = 3, .seed = 1};
  const auto free = text_of(model, 4, all, true);
  CHECK(*std::max_element(free.begin(), free.end()) == 10);
  generation_options some = all;
  some.ids = 7;
  const auto held = text_of(model, 4, some, true);
  CHECK(held.size() == 60);
  CHECK(*std::max_element(held.begin(), held.end()) == 6);
  CHECK(held == text_of(model, 4, some, false));
  some.end_token = held[20];
  const auto first = std::find(held.begin(), held.end(), held[20]);
  CHECK(text_of(model, 4, some, true) == std::vector<std::int32_t>(held.begin(), first + 1));
}

TEST_CASE("generation: a cache refuses more than it holds, forgets, and asks for no memory", "[models]") {
  context<cpu> ctx({.threads = 1});
  two_experts model(ctx, small_shape(3));
  randomize(model, 1);
  const token_batch batch(1, 9, 11);
  const auto tokens = [&](index_t begin, index_t end) {
    return vector_view<const std::int32_t>(batch.inputs.data() + begin, end - begin);
  };
  auto cache = model.make_cache(8);
  tensor<double> first(1, 11), again(1, 11);
  CHECK_THROWS_WITH(model.extend(cache, tokens(0, 9), first.vector()),
                    "kv_cache: expected 1 to 8 more tokens in a cache of 8 positions that holds 0, got 9");
  CHECK_THROWS_AS(model.extend(cache, tokens(0, 0), first.vector()), error);
  model.extend(cache, tokens(0, 5), first.vector());
  cache.clear();
  model.extend(cache, tokens(0, 5), again.vector());
  CHECK(same_bits(first, again));
  const std::size_t requests = ctx.workspace().requests();
  for (index_t t = 5; t < 8; ++t) model.extend(cache, tokens(t, t + 1), first.vector());
  CHECK(ctx.workspace().requests() == requests);
  CHECK(ctx.workspace().live_bytes() == 0);
  CHECK_THROWS_AS(model.extend(cache, tokens(8, 9), first.vector()), error);
  CHECK_THROWS_WITH(model.make_cache(0), "kv_cache: expected room for at least one position, got 0");
}

// The definition, written down once more: sort all, keep k, keep the nucleus, draw.
TEST_CASE("generation: a sampler draws from the most likely tokens", "[models]") {
  const std::vector<double> logits{1, 3, -2, 3, 0.5, 2, -1};  // a tie at the top: ids 1 and 3
  const index_t n = 7;
  const auto seen = [&](generation_options options) {
    token_sampler<double> sample(options);
    std::set<std::int32_t> ids;
    for (std::uint64_t position = 0; position < 400; ++position) {
      const std::int32_t id = sample(logits.data(), n, position);
      CHECK(id == sample_token(logits.data(), n, options, position));
      ids.insert(id);
    }
    return ids;
  };
  using set = std::set<std::int32_t>;
  CHECK(seen({.temperature = 0}) == set{1});
  CHECK(seen({.temperature = 1, .top_k = 1}) == set{1});
  CHECK(seen({.temperature = 1, .top_k = 3}) == set{1, 3, 5});
  CHECK(seen({.temperature = 5}) == set{0, 1, 2, 3, 4, 5, 6});
  CHECK(seen({.temperature = 5, .ids = 3}) == set{0, 1, 2});
  // e^0, e^0, e^-1 of 2.54: half of the mass is in the first two.
  CHECK(seen({.temperature = 1, .top_p = 0.5}) == set{1, 3});
  CHECK(seen({.temperature = 1, .top_k = 3, .top_p = 0.99}) == set{1, 3, 5});
}

}  // namespace generation_tests
