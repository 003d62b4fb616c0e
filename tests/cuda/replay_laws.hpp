// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A training step that is recorded and replayed gives the bits of one that is queued anew, on any context: with
// schedules, accumulation, batches of changing numbers of targets, noise in routers and gates, and balancers that keep
// a state. Where a backend records nothing the same steps are taken by the same code.

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include <graft/layers/smear.hpp>
#include <graft/models/routed_forest.hpp>
#include <graft/models/stitched_transformer.hpp>
#include <graft/models/transformer.hpp>
#include <graft/policies/balancer/all.hpp>
#include <graft/policies/balancer/global_batch_loss.hpp>
#include <graft/policies/balancer/loss_free_bias.hpp>
#include <graft/policies/balancer/sequence_loss.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/sample_top_1.hpp>
#include <graft/policies/router/sigmoid_top_k.hpp>
#include <graft/policies/stitch_topology/hub_and_spokes.hpp>
#include <graft/train/trainer.hpp>

#include "catch.hpp"

#include "resident.hpp"

namespace graft::test {

inline transformer_shape replay_shape(index_t experts) {
  return {.vocabulary = 13,
          .width = 32,
          .blocks = 2,
          .heads = 2,
          .kv_heads = 1,
          .head_dim = 16,
          .hidden = 24,
          .positions = 16,
          .tied = experts == 0,
          .experts = experts};
}

inline training_options replay_options(bool record) {
  return {.steps = 8,
          .sequences = 4,
          .positions = 8,
          .micro_sequences = 2,
          .balance_groups = 2,
          .seed = 5,
          .learning_rate = 0.02,
          .warmup_steps = 3,
          .decay = decay_form::linear,
          .optimizer = {.clip = 0.5},
          .record_graph = record};
}

// Sequences of changing lengths with padding behind them, and now and then a missing target.
struct ragged_source {
  index_t vocabulary = 13;
  void fill(index_t step, matrix_view<std::int32_t> inputs, matrix_view<std::int32_t> targets) const {
    for (index_t b = 0; b < inputs.extent(0); ++b) {
      const index_t length = inputs.extent(1) - (3 * step + b) % 5;
      for (index_t s = 0; s < inputs.extent(1); ++s) {
        const index_t token = (7 * step + 3 * b + 5 * s * s) % vocabulary;
        inputs(b, s) = s < length ? static_cast<std::int32_t>(token) : -1;
        targets(b, s) =
            s < length && (s + step) % 6 != 2 ? static_cast<std::int32_t>((3 * token + 1) % vocabulary) : -1;
      }
    }
  }
};

// Makers: maker(ctx) gives a model with random weights, the same each time, and whatever it rests on.
template <class Mixture, class P>
struct replay_transformer {
  Mixture mixture{};
  index_t experts = 0;
  template <class Ctx>
  auto operator()(Ctx& ctx) const {
    auto model =
        std::make_shared<transformer<Mixture, compute<P, typename Ctx::backend>>>(ctx, replay_shape(experts), mixture);
    model->initialize(3);
    return model;
  }
};

template <class P, class Ctx>
auto replay_members(Ctx& ctx) {
  std::vector<std::shared_ptr<dense_transformer<compute<P, typename Ctx::backend>>>> members;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    members.push_back(std::make_shared<dense_transformer<compute<P, typename Ctx::backend>>>(ctx, replay_shape(0)));
    members.back()->initialize(seed);
  }
  return members;
}

template <class P>
struct replay_stitched {
  template <class Ctx>
  auto operator()(Ctx& ctx) const {
    auto model = std::make_shared<stitched_transformer<hub_and_spokes, compute<P, typename Ctx::backend>>>(
        ctx, replay_members<P>(ctx), hub_and_spokes{}, stitch_options{.stitches = 2, .dropout = 0.25});
    model->initialize();
    return model;
  }
};

template <class P>
struct replay_routed_forest {
  template <class Ctx>
  auto operator()(Ctx& ctx) const {
    auto model = std::make_shared<routed_forest<compute<P, typename Ctx::backend>>>(
        replay_members<P>(ctx), expert_routing_options{.shortest = 2, .longest = 7});
    model->initialize(3);
    return model;
  }
};

// What a run has learned so far.
template <class Trainer>
auto learned(Trainer& run) {
  auto& model = run.model();
  using M = typename std::remove_reference_t<decltype(model)>::M;
  std::vector<std::vector<M>> all;
  for (const auto& arena :
       {model.parameters().master(), run.optimizer().first_moment(), run.optimizer().second_moment()}) {
    all.emplace_back(static_cast<std::size_t>(arena.extent(0)));
    copy_to_host(model.context(), all.back().data(), arena);
  }
  return all;
}
template <class State>
bool same_bytes(const State& a, const State& b) {
  bool same = a.size() == b.size();
  for (std::size_t i = 0; same && i < a.size(); ++i)
    same = a[i].size() == b[i].size() && std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(a[i][0])) == 0;
  return same;
}

inline bool same_report(const step_report& a, const step_report& b) {
  return a.step == b.step && a.loss == b.loss && a.auxiliary == b.auxiliary && a.gradient_norm == b.gradient_norm &&
         a.learning_rate == b.learning_rate && a.load == b.load;
}

// records: whether the backend does.
template <class Ctx, class Make>
void check_replay(Ctx& ctx, const char* name, bool records, const Make& make) {
  INFO(name);
  using model_type = typename decltype(make(ctx))::element_type;
  ragged_source source;
  const index_t steps = replay_options(true).steps, middle = 4;

  const auto eager_model = make(ctx);
  trainer<model_type> eager(*eager_model, replay_options(false));
  const auto start = learned(eager);
  std::vector<step_report> want;
  std::vector<decltype(learned(eager))> states;
  while (!eager.finished()) {
    want.push_back(eager.step(source));
    states.push_back(learned(eager));
  }
  CHECK(!eager.replays());
  CHECK(!same_bytes(start, states.back()));

  // Every step replayed but the first two; nothing asked for after the first.
  const auto model = make(ctx);
  trainer<model_type> run(*model, replay_options(true));
  std::vector<step_report> reports;
  reports.push_back(run.step(source));
  CHECK(!run.replays());
  const auto requests = ctx.workspace().requests();
  while (!run.finished()) {
    reports.push_back(run.step(source));
    CHECK(run.replays() == records);
  }
  CHECK(ctx.workspace().requests() == requests);
  CHECK(ctx.workspace().live_bytes() == 0);
  for (std::size_t i = 0; i < want.size(); ++i) {
    INFO("step " << i);
    CHECK(same_report(reports[i], want[i]));
  }
  CHECK(same_bytes(learned(run), states.back()));

  // Without a report until the end, the next batch filled while the device works; other work in between, for which the
  // workspace moves.
  const auto other = make(ctx);
  trainer<model_type> quiet(*other, replay_options(true));
  while (!quiet.finished()) {
    if (quiet.next_step() == middle) {
      workspace_scope scope(ctx);
      ctx.template allocate<std::byte>(static_cast<index_t>(ctx.workspace().reserved_bytes()) + 1);
    }
    quiet.advance(source);
    quiet.prepare(source);
    CHECK(quiet.replays() == (records && quiet.next_step() != 1 && quiet.next_step() != middle + 1));
  }
  CHECK(same_report(quiet.report(), want.back()));
  CHECK(same_bytes(learned(quiet), states.back()));

  // Taken up in the middle, as from a checkpoint.
  const auto late = make(ctx);
  trainer<model_type> resumed(*late, replay_options(true));
  const auto& at = states[static_cast<std::size_t>(middle) - 1];
  copy_from_host(ctx, late->parameters().master(), at[0].data());
  copy_from_host(ctx, resumed.optimizer().first_moment(), at[1].data());
  copy_from_host(ctx, resumed.optimizer().second_moment(), at[2].data());
  late->parameters().refresh(ctx);
  resumed.set_next_step(middle);
  while (!resumed.finished()) {
    const auto step = static_cast<std::size_t>(resumed.next_step());
    CHECK(same_report(resumed.step(source), want[step]));
  }
  CHECK(same_bytes(learned(resumed), states.back()));
  CHECK(steps == static_cast<index_t>(want.size()));
}

// A mixture whose noise is all that a router can have: samples, a falling temperature, jitter. Static, so that its
// padding is zero: the emulated device looks for stray pointers in what kernels are given.
inline auto noisy_mixture() {
  static mixture<sample_top_1<>, all<switch_loss, global_batch_loss>, routed> result;
  result.router.gate.jitter = 0.2;
  result.router.score.rate = 0.2;
  return result;
}
inline auto biased_mixture() {
  static mixture<sigmoid_top_k<2>, all<loss_free_bias, sequence_loss>, routed> result;
  return result;
}
inline auto dropped_mixture() {
  smear_mixture<> result;
  result.segment = 4;
  result.dropout = 0.4;
  return result;
}

template <class P, class Ctx>
void check_replays(Ctx& ctx, bool records) {
  INFO(P::name);
  check_replay(ctx, "dense", records, replay_transformer<no_mixture, P>{});
  check_replay(ctx, "noise", records, replay_transformer<decltype(noisy_mixture()), P>{noisy_mixture(), 4});
  check_replay(ctx, "bias", records, replay_transformer<decltype(biased_mixture()), P>{biased_mixture(), 4});
}
template <class P, class Ctx>
void check_other_replays(Ctx& ctx, bool records) {
  INFO(P::name);
  check_replay(ctx, "merged experts", records,
               replay_transformer<decltype(dropped_mixture()), P>{dropped_mixture(), 4});
  check_replay(ctx, "stitched", records, replay_stitched<P>{});
  check_replay(ctx, "routed forest", records, replay_routed_forest<P>{});
}

}  // namespace graft::test
