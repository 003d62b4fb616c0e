// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The bytes of the cost sheet against what a training pass really takes: arenas, moments, the peak of the workspace.

#include "catch.hpp"

#include <memory>
#include <vector>

#include <graft/analysis/cost_sheet.hpp>
#include <graft/backend/cpu/cpu.hpp>
#include <graft/models/stitched_transformer.hpp>
#include <graft/policies/router/sample_top_1.hpp>
#include <graft/train/adamw.hpp>

namespace cost_memory_tests {

using namespace graft;

namespace {

// The prediction against the workspace's peak in a pass of a real model. Statistics and packed operands are not
// counted; below 512 rows no operand is packed.
template <class P, class Mixture>
void check_memory(const counted_model& counted, const Mixture& mixture, index_t slots, index_t sequences,
                  index_t positions) {
  using compute_type = compute<P, cpu>;
  using M = typename P::master;
  INFO(P::name << ", vocabulary " << counted.shape.vocabulary << ", experts " << counted.shape.experts << ", "
               << sequences << " x " << positions);
  const cost_options options{.sequences = sequences, .positions = positions, .precision = P::name};
  const counted_pass pass = detail::pass_of(options, positions);
  const slots_rule rule{static_cast<double>(slots)};
  const index_t tokens = sequences * positions;
  buffer<std::int32_t, host_space> ids(tokens);
  for (index_t i = 0; i < tokens; ++i) ids.view()[i] = static_cast<std::int32_t>(i * 7 % counted.shape.vocabulary);
  const view<const std::int32_t, 2, host_space> batch = ids.view(sequences, positions);

  context<cpu> context;
  transformer<Mixture, compute_type> model(context, counted.shape, mixture);
  model.initialize(1);
  {
    buffer<M, host_space> losses(tokens);
    model.token_losses(losses.view(), batch, batch);
    const auto peak = static_cast<double>(context.workspace().peak_bytes());
    const double predicted = inference_activations(counted, rule, pass);
    CHECK(predicted <= peak);
    CHECK(predicted >= 0.99 * peak);
  }
  model.parameters().set_trainable({});
  model.forward_backward(batch, batch, {});
  const auto peak = static_cast<double>(context.workspace().peak_bytes());
  const cost_row row = detail::trained_model(counted, rule, pass);
  CHECK(row.activations <= peak);
  CHECK(row.activations >= 0.99 * peak);

  // Arenas have gaps of less than 64 elements behind each parameter.
  const auto& parameters = model.parameters();
  const adamw<compute_type> optimizer(context, model.layout(), parameters.trainable(), {});
  CHECK(row.total == static_cast<double>(model.layout().parameter_count()));
  const auto close = [&](double bytes, const auto& arena, double size) {
    const double real = static_cast<double>(arena.size()) * size;
    CHECK(bytes <= real);
    CHECK(bytes >= 0.98 * real);
  };
  const double element = sizeof(typename P::storage);
  if (has_narrow_copy<P>)
    close(row.weights, parameters.narrow(), element), close(row.master_weights, parameters.master(), sizeof(M));
  else
    close(row.weights, parameters.master(), element);
  close(row.gradients, parameters.gradients(), sizeof(M));
  close(row.optimizer / 2, optimizer.first_moment(), sizeof(M));
  CHECK(row.bytes() == row.weights + row.master_weights + row.gradients + row.optimizer + row.activations);
}

}  // namespace

TEST_CASE("cost_sheet: bytes are those that training takes", "[analysis]") {
  counted_model model;
  model.place = "config.json";
  model.shape = {.vocabulary = 300,
                 .width = 64,
                 .blocks = 3,
                 .heads = 4,
                 .kv_heads = 2,
                 .head_dim = 16,
                 .hidden = 128,
                 .positions = 128};
  model.routed_blocks.assign(3, false);
  check_memory<fp32>(model, no_mixture(), 0, 4, 64);
  check_memory<bf16>(model, no_mixture(), 0, 4, 64);
  counted_model large_head = model;
  large_head.shape.vocabulary = 5000;
  check_memory<fp32>(large_head, no_mixture(), 0, 4, 64);
  counted_model normed = model;
  normed.shape.qk_norm = true;
  normed.qk_norm = qk_norm_width::head;
  check_memory<bf16>(normed, no_mixture(), 0, 4, 64);

  model.shape.experts = 4;
  model.routed_blocks.assign(3, true);
  check_memory<bf16>(model, mixture<top_k<2>, no_balancer, routed>(), 2, 4, 64);
  // Every slot of a router has a row, also where it stays empty.
  check_memory<bf16>(model, mixture<sample_top_1<4>, no_balancer, routed>(), 4, 4, 64);
  counted_model added = model;
  added.addition = expert_addition::lora;
  check_memory<bf16>(added, mixture<top_k<2>, no_balancer, lora>(), 2, 4, 64);
  // Experts of attention too: BAM with adapters.
  added = model;
  added.addition = expert_addition::adapter;
  added.attention = attention_experts{.adapters = true};
  added.shape.qk_norm = true;
  added.qk_norm = qk_norm_width::head;
  check_memory<bf16>(added, with_attention_experts(mixture<top_k<2>, no_balancer, adapted>(), *added.attention), 2, 4,
                     64);
  model.shape.shared_hidden = 96;
  model.shape.first_dense = 1;
  model.shape.dense_hidden = 200;
  model.routed_blocks[0] = false;
  check_memory<bf16>(model, mixture<top_k<2>, no_balancer, shared_routed<>>(), 2, 4, 64);
}

TEST_CASE("cost_sheet: bytes of stitched models are those that training takes", "[analysis]") {
  using compute_type = compute<bf16, cpu>;
  counted_model counted;
  counted.place = "config.json";
  counted.shape = {.vocabulary = 300,
                   .width = 64,
                   .blocks = 3,
                   .heads = 4,
                   .kv_heads = 2,
                   .head_dim = 16,
                   .hidden = 128,
                   .positions = 128};
  counted.routed_blocks.assign(3, false);
  std::vector<std::int32_t> ids(4 * 64);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i * 7 % 300);
  const view<const std::int32_t, 2, host_space> batch(ids.data(), 4, 64);
  for (const auto& [name, stitches] : std::vector<std::pair<std::string, index_t>>{
           {"hub_and_spokes", 0}, {"hub_and_spokes", 1}, {"into_hub", 3}, {"all_to_all", 2}}) {
    INFO(name << ", " << stitches);
    context<cpu> context;
    std::vector<std::shared_ptr<dense_transformer<compute_type>>> members;
    for (std::uint64_t i = 0; i < 3; ++i) {
      members.push_back(std::make_shared<dense_transformer<compute_type>>(context, counted.shape));
      members.back()->initialize(i);
    }
    const any_topology topology = any_topology::named(name);
    stitched_transformer<any_topology, compute_type> model(context, members, topology, {.stitches = stitches});
    model.initialize();
    model.parameters().set_trainable({});
    model.forward_backward(batch, batch, {});
    const auto peak = static_cast<double>(context.workspace().peak_bytes());
    const cost_row row =
        sheet_of_methods({counted}, {"bts"},
                         {.sequences = 4, .positions = 64, .models = 3, .stitches = stitches, .topology = name})
            .rows.front();
    CHECK(row.activations <= peak);
    CHECK(row.activations >= 0.99 * peak);
    CHECK(row.trained == static_cast<double>(model.layout().parameter_count()));
    CHECK(row.total == static_cast<double>(model.parameter_count()));
    CHECK(row.gradients == 4 * row.trained);
    // Arenas have gaps of less than 64 elements behind each parameter.
    CHECK(static_cast<double>(model.parameters().gradients().size()) >= row.trained);
    CHECK(static_cast<double>(model.parameters().gradients().size()) <= 1.02 * row.trained);
  }
}

}  // namespace cost_memory_tests
