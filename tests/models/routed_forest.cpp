// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Expert routing: what the router computes, its gradient, and that a sequence is read by the member it is sent to.

#include "catch.hpp"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <graft/models/generation.hpp>
#include <graft/models/routed_forest.hpp>

#include "bigram_member.hpp"
#include "gradient_check.hpp"

namespace routed_forest_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <class P>
using routed_of = routed_forest<compute<P, cpu>, bigram_member<P>>;

template <class Model>
void randomize_router(Model& model, std::uint64_t seed, double deviation = 3) {
  const random_source draw{seed, random_stream::data};
  const auto master = model.parameters().master();
  for (index_t i = 0; i < master.extent(0); ++i)
    master[i] = static_cast<typename Model::M>(deviation * draw.normal(9, static_cast<std::uint64_t>(i)));
  model.parameters().refresh(model.context());
}

// l_c = W_c . mean of the embeddings of the first `seen` tokens of sequence b.
template <class Model>
std::vector<double> reference_logits(Model& model, const text_batch& batch, index_t b, index_t seen) {
  const auto& embedding = model.members()[0]->embedding;
  const auto weight = model.parameters().master_views().router.matrix();
  std::vector<double> logits;
  for (index_t c = 0; c < weight.extent(0); ++c) {
    double logit = 0;
    for (index_t i = 0; i < weight.extent(1); ++i) {
      double mean = 0;
      index_t count = 0;
      for (index_t s = 0; s < seen; ++s) {
        const std::int32_t token = batch.input()(b, s);
        if (token < 0) continue;
        mean += embedding.at(token, i);
        ++count;
      }
      logit += static_cast<double>(weight(c, i)) * mean / static_cast<double>(count);
    }
    logits.push_back(logit);
  }
  return logits;
}
index_t best_of(const std::vector<double>& values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

}  // namespace

TEMPLATE_TEST_CASE("expert routing: every sequence is read by the member of its largest logit alone",
                   "[models][routing]", fp64, bf16) {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<TestType>(ctx, 3, 7);
  const index_t seen = GENERATE(0, 3);
  routed_of<TestType> model(members, {.choose_from = seen});
  using M = typename TestType::master;
  randomize_router(model, 1);
  text_batch batch(8, 9, 7);
  batch.inputs[8] = -1, batch.targets[8] = -1;  // padding is in no mean
  const auto chosen = model.choose(batch.input());
  const std::vector<M> logits = model.router().logits(members[0]->embedding.matrix(), batch.input(), seen);
  tensor<M> losses(1, batch.tokens()), own(1, batch.tokens());
  model.token_losses(losses.vector(), batch.input(), batch.target());
  std::vector<double> tokens(3);
  std::vector<index_t> sequences(3);
  for (index_t b = 0; b < 8; ++b) {
    const std::vector<double> by_hand = reference_logits(model, batch, b, seen > 0 ? seen : 9);
    const index_t want = best_of(by_hand);
    // A mean of 9 and a product of 4 numbers of up to about 10.
    for (std::size_t c = 0; c < 3; ++c)
      CHECK(std::abs(static_cast<double>(logits[static_cast<std::size_t>(3 * b) + c]) - by_hand[c]) <=
            64 * 10 * unit_roundoff<M>);
    CHECK(chosen[static_cast<std::size_t>(b)] == want);
    tokens[static_cast<std::size_t>(want)] += b == 0 ? 8 : 9;
    ++sequences[static_cast<std::size_t>(want)];
    members[static_cast<std::size_t>(want)]->token_losses(own.vector().rows(b * 9, b * 9 + 9),
                                                          batch.input().rows(b, b + 1), batch.target().rows(b, b + 1));
  }
  CHECK(same_bits(losses, own));
  CHECK(model.metrics().load.at(0).counts == tokens);
  CHECK(sequences[0] < 8);
  for (std::size_t j = 0; j < 3; ++j) CHECK(members[j]->sequences == 2 * sequences[j]);

  tensor<M> next(8, 7), alone(1, 7);
  model.next_token_logits(next.matrix(), batch.input().rows(1, 8));
  for (index_t b = 1; b < 8; ++b) {
    const auto& member = members[static_cast<std::size_t>(chosen[static_cast<std::size_t>(b)])];
    for (index_t v = 0; v < 7; ++v)
      CHECK(next.at(b - 1, v) ==
            Approx(member->log_probability(batch.input()(b, 8), static_cast<std::int32_t>(v))).margin(1e-5));
  }
  CHECK(model.parameter_count() == 3 * 49 + 3 * 4);
  CHECK(model.active_parameter_count() == 49 + 3 * 4);
  CHECK(model.layout().find("router.weight") != nullptr);
}

TEST_CASE("expert routing: the two best members, mixed by the softmax of their logits", "[models][routing]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 3, 7);
  routed_of<fp64> model(members, {.kept = 2});
  randomize_router(model, 1, 1);
  const text_batch batch(2, 5, 7);
  tensor<double> losses(1, 10);
  model.token_losses(losses.vector(), batch.input(), batch.target());
  for (index_t b = 0; b < 2; ++b) {
    std::vector<double> logits = reference_logits(model, batch, b, 5);
    const auto worst = std::min_element(logits.begin(), logits.end()) - logits.begin();
    for (index_t t = 0; t < 5; ++t) {
      const auto at = static_cast<std::size_t>(5 * b + t);
      double sum = 0, mixed = 0;
      for (std::ptrdiff_t j = 0; j < 3; ++j) {
        if (j == worst) continue;
        const auto member = static_cast<std::size_t>(j);
        sum += std::exp(logits[member]);
        mixed += std::exp(logits[member] + members[member]->log_probability(batch.inputs[at], batch.targets[at]));
      }
      CHECK(losses.at(0, 5 * b + t) == Approx(-std::log(mixed / sum)).epsilon(1e-12));
    }
  }
  const auto best =
      model.router().choose(members[0]->parameters().weights().model.embed_tokens.matrix(), batch.input(), 3);
  for (index_t b = 0; b < 2; ++b) {
    const std::vector<double> logits = reference_logits(model, batch, b, 5);
    for (std::size_t i = 0; i < 2; ++i) {
      const auto at = static_cast<std::size_t>(3 * b) + i;
      CHECK(logits[static_cast<std::size_t>(best[at])] > logits[static_cast<std::size_t>(best[at + 1])]);
    }
  }
}

TEST_CASE("expert routing: the router's loss and its gradient", "[models][routing]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 3, 7);
  const label_tokens labels = GENERATE(label_tokens::all, label_tokens::continuation);
  routed_of<fp64> model(members, {.shortest = 2, .longest = 7, .labels = labels});
  randomize_router(model, 2, 1);
  text_batch batch(4, 9, 7);
  batch.targets[35] = -1;
  const pass_options options{.token_scale = 1.0 / 35, .at = {.seed = 5, .step = 3, .training = true}};
  model.parameters().set_trainable({});
  const auto run = [&] {
    model.clear_metrics();
    model.forward_backward(batch.input(), batch.target(), options);
    return model.metrics().loss_sum / 35;
  };
  const double loss = run();
  const auto gradients = model.parameters().gradients();
  const std::vector<double> gradient(gradients.data, gradients.data + 12);
  const double agreement = model.agreement();
  const auto load = model.metrics().load.at(0);
  const auto master = model.parameters().master();
  CHECK(gradient_mismatch(run, std::span<double>(master.data, 12), gradient) == "");

  // The same by the definition; how many tokens are seen is a function of (seed, step, sequence).
  double want = 0, agreed = 0;
  std::vector<double> sent(3);
  bool some_differ = false;
  index_t first_seen = 0;
  for (index_t b = 0; b < 4; ++b) {
    const random_source random{5, random_stream::router};
    const index_t seen = 2 + static_cast<index_t>(random.below(6, 3, static_cast<std::uint64_t>(b)));
    if (b == 0) first_seen = seen;
    some_differ = some_differ || seen != first_seen;
    std::vector<double> totals;
    for (const auto& member : members) {
      double total = 0;
      for (index_t t = labels == label_tokens::all ? 0 : seen - 1; t < 9; ++t) {
        const auto at = static_cast<std::size_t>(9 * b + t);
        if (batch.targets[at] >= 0) total -= member->log_probability(batch.inputs[at], batch.targets[at]);
      }
      totals.push_back(total);
    }
    const auto label = std::min_element(totals.begin(), totals.end()) - totals.begin();
    const std::vector<double> logits = reference_logits(model, batch, b, seen);
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit);
    const double tokens = b == 3 ? 8 : 9;
    want += tokens * (std::log(sum) - logits[static_cast<std::size_t>(label)]) / 35;
    agreed += best_of(logits) == label ? tokens : 0;
    sent[static_cast<std::size_t>(best_of(logits))] += tokens;
  }
  CHECK(some_differ);
  CHECK(loss == Approx(want).epsilon(1e-12));
  CHECK(agreement == Approx(agreed / 35));
  CHECK(load.counts == sent);
  CHECK(load.tokens == 35);

  // Two micro-batches give the gradient of one: the same tokens are seen.
  for (index_t i = 0; i < 12; ++i) gradients[i] = 0;
  for (index_t half = 0; half < 2; ++half) {
    pass_options part = options;
    part.at.first_token = 18 * half;
    model.forward_backward(batch.input().rows(2 * half, 2 * half + 2), batch.target().rows(2 * half, 2 * half + 2),
                           part);
  }
  for (std::size_t i = 0; i < 12; ++i) CHECK(gradients[static_cast<index_t>(i)] == Approx(gradient[i]).margin(1e-14));
  // The same bits again.
  std::vector<double> again(gradients.data, gradients.data + 12);
  for (index_t i = 0; i < 12; ++i) gradients[i] = 0;
  run();
  const std::vector<double> first(gradients.data, gradients.data + 12);
  for (index_t i = 0; i < 12; ++i) gradients[i] = 0;
  run();
  CHECK(first == std::vector<double>(gradients.data, gradients.data + 12));
}

// Text 0 1 2 3 4. Member 0 is better on 1, less so member 1 on 2, and still less member 0 on 3. Over the whole text
// member 0 has the lower loss; over what follows the first two tokens member 1. A router of zeros chooses member 0.
TEST_CASE("expert routing: what the label is judged by", "[models][routing]") {
  context<cpu> ctx({.threads = 1});
  bigrams<fp64> members;
  for (index_t j = 0; j < 2; ++j) members.push_back(std::make_shared<bigram_member<fp64>>(ctx, tensor<double>(7, 7)));
  members[0]->table(0, 1) = 20;
  members[1]->table(1, 2) = 2;
  members[0]->table(2, 3) = 1;
  text_batch batch(1, 4, 7);
  batch.inputs = {0, 1, 2, 3};
  batch.targets = {1, 2, 3, 4};
  const auto agreement = [&](label_tokens labels, index_t seen) {
    routed_of<fp64> model(members, {.shortest = seen, .longest = seen, .labels = labels});
    model.parameters().set_trainable({});
    model.forward_backward(batch.input(), batch.target(), {});
    return model.agreement();
  };
  CHECK(agreement(label_tokens::all, 2) == 1);
  CHECK(agreement(label_tokens::continuation, 1) == 1);
  CHECK(agreement(label_tokens::continuation, 2) == 0);
  CHECK(agreement(label_tokens::continuation, 3) == 1);
  CHECK(agreement(label_tokens::continuation, 4) == 1);  // both the same there: the lower index
}

TEST_CASE("expert routing: generation stays with the member that its prompt chose", "[models][routing]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 3, 7);
  routed_of<fp64> model(members);
  randomize_router(model, 4);
  const std::vector<std::int32_t> prompt = {1, 2, 3, 4, 5};
  const auto chosen = model.choose(matrix_view<const std::int32_t>(prompt.data(), 1, 5));
  const auto& member = members[static_cast<std::size_t>(chosen[0])];
  const auto text = generate(model, prompt, {.tokens = 11, .temperature = 1, .seed = 3});
  CHECK(text == generate(*member, prompt, {.tokens = 11, .temperature = 1, .seed = 3}));
  CHECK(member->caches > 0);
  // The others take no cache.
  for (std::size_t j = 0; j < 3; ++j) CHECK((members[j]->caches > 0) == (static_cast<index_t>(j) == chosen[0]));
  // Without a cache, and across cuts of the context.
  CHECK(text == generate(model, prompt, {.tokens = 11, .temperature = 1, .seed = 3, .use_cache = false}));
  CHECK(generate(model, prompt, {.tokens = 60, .temperature = 1, .seed = 3}) ==
        generate(model, prompt, {.tokens = 60, .temperature = 1, .seed = 3, .use_cache = false}));
}

TEST_CASE("expert routing: wrong options are refused", "[models][routing]") {
  context<cpu> ctx({.threads = 1});
  const auto members = random_bigrams<fp64>(ctx, 2, 7);
  using model_type = routed_of<fp64>;
  CHECK_THROWS_WITH(model_type(members, {.kept = 3}), "routed_forest: expected to keep from 1 to 2 members, got 3");
  CHECK_THROWS_WITH(model_type(members, {.shortest = 9, .longest = 8}),
                    "routed_forest: expected choose_from >= 0 and 1 <= shortest <= longest, got choose_from=0, "
                    "shortest=9, longest=8");
  model_type model(members);
  const text_batch batch(1, 5, 7);
  CHECK_THROWS_WITH(model.forward_backward(batch.input(), batch.target(), {}),
                    "forward_backward: no gradients are allocated, call parameters().set_trainable first");
  CHECK_THROWS_WITH(model.router().choose(members[0]->embedding.matrix(), batch.input(), 3),
                    "expert_router: expected to choose from 1 to 2 models, got 3");
}

}  // namespace routed_forest_tests
