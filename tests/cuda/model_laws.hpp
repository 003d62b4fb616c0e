// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Routing, the mixture layer, whole models and training on any context, against the CPU in fp64 and against themselves.
// Bodies as in op_laws.hpp. Experts are chosen by logits that differ by far more than rounding, so every run chooses
// the same ones; in whole bf16 models a token goes to all experts instead, since there the logits are off by more than
// their distances.

#include <cstring>
#include <string>
#include <vector>

#include <graft/layers/attention_experts.hpp>
#include <graft/layers/moe.hpp>
#include <graft/models/transformer.hpp>
#include <graft/policies/balancer/all.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/balancer/z_loss.hpp>
#include <graft/policies/expert_layout/capacity.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/expert_layout/with_experts.hpp>
#include <graft/policies/router/top_k.hpp>
#include <graft/train/trainer.hpp>

#include "op_laws.hpp"

namespace graft::test {

template <class T>
struct precision_of_storage {
  using type = fp32;
};
template <>
struct precision_of_storage<double> {
  using type = fp64;
};
template <>
struct precision_of_storage<bfloat16> {
  using type = bf16;
};
template <class T, class Ctx>
using compute_on = compute<typename precision_of_storage<T>::type, typename Ctx::backend>;

using both_losses = all<switch_loss, z_loss>;
template <int K>
using mixture_with = mixture<top_k<K>, both_losses, routed>;

// ---- layers
// -------------------------------------------------------------------------------------------------------------

struct routing_body {
  index_t tokens, experts, groups;
  template <class Stage>
  results operator()(const Stage& s) const {
    using M = typename Stage::M;
    using space = typename Stage::space;
    constexpr int slots = 2;
    workspace_scope scope(s.ctx);
    const both_losses balancer;
    const auto logits = s.master(tokens, experts, 1), weights = s.master(tokens, slots, 2),
               d_weights = s.master(tokens, slots, 3), loss = s.master(1, 1, 4);
    const auto selected = s.integers(std::vector<std::int32_t>(static_cast<std::size_t>(tokens * slots), -7));
    const auto d_logits = s.master(tokens, experts, 5);
    const auto load = s.master(1, routing_load{experts}.size(), 6);
    const view<std::int32_t, 2, space> slot_view(selected.vector().data, tokens, slots);
    routing_pass<M, space> pass;
    pass.experts = experts;
    pass.positions = tokens / groups;
    pass.balance_groups = groups;
    pass.load = load.vector();
    pass.loss = loss.vector();
    const auto statistics = route_forward(s.ctx, top_k<slots>{}, balancer, pass, slot_view, weights.matrix(),
                                          view<const M, 2, space>(logits.matrix()));
    const double n = 4 * static_cast<double>(experts + tokens);
    results all{{"selected", wide(selected), false},
                {"weights", wide(weights), false, 32},
                {"statistics", wide(s.ctx, statistics.groups), false, n},
                {"load", wide(load), false, n},
                {"loss", wide(loss), false, n}};
    route_backward(s.ctx, top_k<slots>{}, balancer, pass, d_logits.matrix(), statistics,
                   view<const M, 2, space>(logits.matrix()), slot_view, view<const M, 2, space>(weights.matrix()),
                   d_weights.matrix(), 100.0);
    all.push_back({"d_logits", wide(d_logits), false, n});
    return all;
  }
};

// The mixture layer, forward and backward. The last expert has no token; its weights' gradients stay what they were.
// Rows are copied in the order of the experts only where the products or the experts ask for that.
template <class Layout>
struct moe_body {
  index_t tokens, experts;
  template <class Stage>
  results operator()(const Stage& s) const {
    using T = typename Stage::storage;
    using space = typename Stage::space;
    using ctx_type = std::remove_reference_t<decltype(s.ctx)>;
    using C = compute_on<T, ctx_type>;
    constexpr int slots = 2;
    transformer_shape shape;
    shape.width = 40;
    shape.hidden = 56;
    shape.experts = experts;
    const moe_policies<top_k<slots>, both_losses, Layout> policies{};
    const auto specs = policies.specs(shape);
    const parameter_layout layout = make_layout(specs);

    auto values = s.stored(1, layout.size, 1, 0.3).get();
    auto input = s.stored(tokens, shape.width, 2).get();
    for (index_t t = 0; t < tokens; ++t) input(t, 0) = T(1.0f);
    values(0, (experts - 1) * shape.width) = T(-64.0f);  // the router's weight of the last expert for column 0
    const resident<ctx_type, T> weights(s.ctx, values), x(s.ctx, input);
    const auto gradients = s.master(1, layout.size, 3, 0.1);
    const auto out = s.stored(tokens, shape.width, 4), d_x = s.stored(tokens, shape.width, 5),
               d_out = s.stored(tokens, shape.width, 6);

    workspace_scope scope(s.ctx);
    using policies_type = std::remove_const_t<decltype(policies)>;
    const auto weight_views =
        bind_parameters<typename policies_type::template parameters<typename C::weight>>(specs, weights.vector());
    const auto gradient_views =
        bind_parameters<typename policies_type::template parameters<typename C::gradient>>(specs, gradients.vector());
    const view<const T, 2, space> x_view = x.matrix(), d_out_view = d_out.matrix();
    routing_pass<typename C::master, space> pass;
    pass.experts = experts;
    pass.balance_groups = 2;
    const auto saved = moe_forward<C>(s.ctx, policies, weight_views, pass, x_view, out.matrix());
    constexpr bool gathers = !std::is_same_v<Layout, adapted> && gathers_rows<typename C::backend, T>;
    CHECK((saved.rows.data == nullptr) == gathers);
    const auto chosen = wide(s.ctx, saved.selected), counts = wide(s.ctx, saved.statistics.groups);
    moe_backward<C>(s.ctx, policies, weight_views, gradient_views, pass, saved, x_view, d_x.matrix(), d_out_view, 1.0);
    const double n = 16 * static_cast<double>(shape.width + 2 * shape.hidden + tokens);
    return {{"selected", chosen, false},
            {"statistics", counts, false, n},
            {"out", wide(out), true, n, 16},
            {"d_x", wide(d_x), true, n, 16},
            {"gradients", wide(gradients), false, n, 16}};
  }
};

template <class S, class Ctx, class Exact>
void check_layers(Ctx& ctx, Exact& exact) {
  check_body<S>(ctx, exact, "routing", routing_body{280, 5, 2});
  check_body<S>(ctx, exact, "routing among many", routing_body{100, 1100, 1});
  check_body<S>(ctx, exact, "moe", moe_body<routed>{70, 5});
  check_body<S>(ctx, exact, "moe with few tokens", moe_body<routed>{2, 9});
  if constexpr (std::is_same_v<S, bfloat16>) {  // whose products gather rows on CUDA, or find them copied
    check_body<S>(ctx, exact, "moe with rows of zeros", moe_body<pad_to_capacity<capacity<>>>{70, 5});
    check_body<S>(ctx, exact, "moe with adapters", moe_body<adapted>{70, 5});
  }
}

// ---- models
// -------------------------------------------------------------------------------------------------------------

inline transformer_shape test_shape(index_t experts) {
  return {.vocabulary = 61,
          .width = 64,
          .blocks = 2,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 16,
          .hidden = 96,
          .positions = 32,
          .tied = experts == 0,
          .qk_norm = true,
          .experts = experts};
}

// The token after t is 3 t + 1 modulo the vocabulary; one target in seven is missing. A function of the step alone.
struct next_token_source {
  index_t vocabulary = 61;
  void fill(index_t step, matrix_view<std::int32_t> inputs, matrix_view<std::int32_t> targets) const {
    const random_source draw{9, random_stream::data};
    for (index_t i = 0; i < inputs.size(); ++i) {
      const auto token = static_cast<index_t>(draw.below(
          static_cast<std::uint64_t>(vocabulary), static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(i)));
      inputs.data[i] = static_cast<std::int32_t>(token);
      targets.data[i] = i % 7 == 3 ? -1 : static_cast<std::int32_t>((3 * token + 1) % vocabulary);
    }
  }
};

// The loss and all gradients of one batch, the losses of tokens by the pass that keeps nothing, and the logits behind a
// sequence that went through a cache. Gradients are compared by the largest of their tensor.
template <class Mixture>
struct model_body {
  index_t experts;
  template <class Stage>
  results operator()(const Stage& s) const {
    using T = typename Stage::storage;
    using M = typename Stage::M;
    using space = typename Stage::space;
    using ctx_type = std::remove_reference_t<decltype(s.ctx)>;
    constexpr index_t sequences = 4, positions = 32, tokens = sequences * positions;
    transformer<Mixture, compute_on<T, ctx_type>> model(s.ctx, test_shape(experts));
    // Weights that S can hold, large enough that every part of the model matters.
    auto values = s.stored(1, model.layout().size, 1, 0.15).get();
    for (const tensor_entry& entry : model.layout().tensors)
      for (index_t i = 0; entry.columns == 0 && i < entry.size(); ++i)
        values(0, entry.offset + i) = T(1.0f + 0.125f * static_cast<float>(i % 5));
    const auto master = Stage::template as<M>(values);
    copy_from_host(s.ctx, model.parameters().master(), master.values.data());
    model.parameters().refresh(s.ctx);
    model.parameters().set_trainable({});

    std::vector<std::int32_t> inputs(tokens), targets(tokens);
    next_token_source{}.fill(0, matrix_view<std::int32_t>(inputs.data(), sequences, positions),
                             matrix_view<std::int32_t>(targets.data(), sequences, positions));
    const auto input = s.integers(inputs), target = s.integers(targets);
    const view<const std::int32_t, 2, space> input_view(input.vector().data, sequences, positions),
        target_view(target.vector().data, sequences, positions);
    const auto losses = s.master(1, tokens, 2);
    model.token_losses(losses.vector(), input_view, target_view);
    // The first sequence again, piece by piece.
    const auto next = s.master(1, 61, 3);
    auto cache = model.make_cache(positions);
    for (const index_t end : {20, 31, 32})
      model.extend(cache, view<const std::int32_t, 1, space>(input.vector()).rows(cache.length, end), next.vector());
    model.clear_metrics();
    model.forward_backward(input_view, target_view,
                           {.token_scale = 1.0 / 64, .auxiliary_scale = 4, .balance_groups = 2});
    const pass_metrics metrics = model.metrics();

    // Roundings to S one after another: 8 in a block's forward pass, as many backward, of 2 blocks.
    const double n = 16 * 256, r = 32;
    const auto numbers = [](const std::vector<double>& v) { return one_row(v); };
    results all{{"losses", wide(losses), false, n, r},
                {"cached logits", wide(next), false, n, r},
                {"loss", numbers({metrics.loss_sum, metrics.auxiliary_sum}), false, n, r},
                {"expert counts", numbers(all_counts(metrics.load)), false}};
    const auto gradients = wide(s.ctx, model.parameters().gradients());
    for (const tensor_entry& entry : model.layout().tensors) {
      tensor<double> part(1, entry.size());
      for (index_t i = 0; i < entry.size(); ++i) part(0, i) = gradients.at(0, entry.offset + i);
      all.push_back({"gradient of " + entry.name, part, false, n, r});
    }
    return all;
  }
};

// Three attentions with common keys and values and adapters, over dense feed-forward layers.
struct mixed_attention : with_attention_experts<no_mixture> {
  mixed_attention() { attention = {.experts = 3, .shared_kv = true, .adapters = true}; }
};

template <class S, class Ctx, class Exact>
void check_models(Ctx& ctx, Exact& exact) {
  check_body<S>(ctx, exact, "dense model", model_body<no_mixture>{0});
  check_body<S>(ctx, exact, "attention experts", model_body<mixed_attention>{0});
  constexpr bool same_choice = !std::is_same_v<S, bfloat16>;
  check_body<S>(ctx, exact, "mixture", model_body<mixture_with<2>>{same_choice ? 5 : 2});
}

// ---- training
// -----------------------------------------------------------------------------------------------------------

inline training_options few_steps() {
  return {.steps = 5,
          .sequences = 4,
          .positions = 16,
          .micro_sequences = 2,
          .balance_groups = 2,
          .learning_rate = 0.01,
          .warmup_steps = 2};
}

// A model in training, and what it has learned.
template <class Mixture, class P, class Ctx>
struct training {
  using model_type = transformer<Mixture, compute<P, typename Ctx::backend>>;
  Ctx& ctx;
  model_type model;
  trainer<model_type> run;
  next_token_source source;

  training(Ctx& context, index_t experts, const trainable_rule& rule = {})
      : ctx(context), model(context, test_shape(experts)), run((model.initialize(3), model), few_steps(), rule) {}

  std::vector<double> steps(index_t until) {
    std::vector<double> losses;
    while (run.next_step() < until) losses.push_back(run.step(source).loss);
    return losses;
  }
  std::vector<tensor<typename P::master>> state() const {
    std::vector<tensor<typename P::master>> all;
    for (const auto& arena :
         {model.parameters().master(), const_cast<trainer<model_type>&>(run).optimizer().first_moment(),
          const_cast<trainer<model_type>&>(run).optimizer().second_moment()}) {
      all.emplace_back(1, arena.extent(0));
      copy_to_host(ctx, all.back().values.data(), arena);
    }
    return all;
  }
};

template <class State>
bool same_state(const State& a, const State& b) {
  bool same = a.size() == b.size();
  for (std::size_t i = 0; same && i < a.size(); ++i) same = same_bits(a[i], b[i]);
  return same;
}

// Losses of five steps against the CPU in fp64; the same bits twice; no memory asked for after the first step; the
// narrow copy is the rounded master; what is frozen stays bit for bit.
template <class Mixture, class P, class Ctx, class Exact>
void check_training(Ctx& ctx, Exact& exact, index_t experts) {
  INFO(P::name << ", experts " << experts);
  training<Mixture, P, Ctx> first(ctx, experts), second(ctx, experts);
  training<Mixture, fp64, Exact> reference(exact, experts);
  const auto before = first.state();
  auto losses = first.steps(1);
  const auto requests = ctx.workspace().requests();
  for (const double loss : first.steps(few_steps().steps)) losses.push_back(loss);
  CHECK(ctx.workspace().requests() == requests);
  CHECK(ctx.workspace().live_bytes() == 0);
  CHECK(!same_state(first.state(), before));

  // Each step's loss errs by the roundings of one pass, as in check_models, and by those of the updates before it:
  // AdamW moves a weight by about the learning rate whatever its gradient's size, so a small gradient's rounding counts
  // fully. A percent of the loss is far below what a wrong update costs (the loss falls by more than a tenth) and above
  // what was seen on the CPU.
  const auto want = reference.steps(few_steps().steps);
  const double tolerance = std::is_same_v<P, fp32> ? 0.002 : 0.02;
  CHECK(want.back() < 0.9 * want.front());
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(std::abs(losses[i] - want[i]) <= tolerance * want[i]);

  CHECK(second.steps(few_steps().steps) == losses);
  CHECK(same_state(second.state(), first.state()));

  if constexpr (has_narrow_copy<P>) {
    const auto narrow_copy = first.model.parameters().narrow();
    tensor<typename P::storage> copy(1, narrow_copy.extent(0));
    copy_to_host(ctx, copy.values.data(), narrow_copy);
    bool rounded = true;
    const auto master = first.state()[0];
    for (const tensor_entry& entry : first.model.layout().tensors)
      for (index_t i = entry.offset; i < entry.offset + entry.size(); ++i) {
        const auto at = static_cast<std::size_t>(i);
        rounded = rounded && copy.values[at].bits == typename P::storage(master.values[at]).bits;
      }
    CHECK(rounded);
  }

  training<Mixture, P, Ctx> frozen(ctx, experts, [](const tensor_entry& entry) { return entry.kind != role::ffn; });
  frozen.steps(2);
  const auto after = frozen.state();
  for (const tensor_entry& entry : frozen.model.layout().tensors) {
    const auto bytes = static_cast<std::size_t>(entry.size()) * sizeof(typename P::master);
    const bool same = std::memcmp(&after[0].values[static_cast<std::size_t>(entry.offset)],
                                  &before[0].values[static_cast<std::size_t>(entry.offset)], bytes) == 0;
    INFO(entry.name);
    CHECK(same == (entry.kind == role::ffn));
  }
}

}  // namespace graft::test
