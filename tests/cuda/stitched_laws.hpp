// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A stitched model on any context, against the CPU in fp64. Bodies as in op_laws.hpp.

#include <memory>
#include <vector>

#include <graft/models/stitched_transformer.hpp>

#include "model_laws.hpp"

namespace graft::test {

// As model_body: the loss and the gradients of the stitches with dropout, the losses of tokens by the pass that keeps
// nothing, the logits behind a sequence that went through caches, the gate values.
template <class Topology>
struct stitched_body {
  Topology topology;
  template <class Stage>
  results operator()(const Stage& s) const {
    using T = typename Stage::storage;
    using M = typename Stage::M;
    using space = typename Stage::space;
    using ctx_type = std::remove_reference_t<decltype(s.ctx)>;
    using C = compute_on<T, ctx_type>;
    constexpr index_t sequences = 3, positions = 32, tokens = sequences * positions;
    const auto fill = [&](auto& model, std::uint64_t seed, double stddev, double diagonal) {
      auto values = s.stored(1, model.layout().size, seed, stddev).get();
      for (const tensor_entry& entry : model.layout().tensors)
        for (index_t i = 0; i < entry.size(); ++i) {
          T& value = values(0, entry.offset + i);
          if (entry.columns == 0) value = T(1.0f + 0.125f * static_cast<float>(i % 5));
          if (diagonal > 0 && entry.name.find(".proj.") != std::string::npos && i / entry.columns == i % entry.columns)
            value = T(static_cast<float>(diagonal));
        }
      const auto master = Stage::template as<M>(values);
      copy_from_host(s.ctx, model.parameters().master(), master.values.data());
      model.parameters().refresh(s.ctx);
    };
    std::vector<std::shared_ptr<dense_transformer<C>>> members;
    for (std::uint64_t i = 0; i < 3; ++i) {
      members.push_back(std::make_shared<dense_transformer<C>>(s.ctx, test_shape(0)));
      fill(*members.back(), 1 + i, 0.15, 0);
    }
    stitched_transformer<Topology, C> model(s.ctx, members, topology, {.stitches = 2});
    fill(model, 7, 0.05, 1);
    model.parameters().set_trainable({});

    std::vector<std::int32_t> inputs(tokens), targets(tokens);
    next_token_source{}.fill(0, matrix_view<std::int32_t>(inputs.data(), sequences, positions),
                             matrix_view<std::int32_t>(targets.data(), sequences, positions));
    const auto input = s.integers(inputs), target = s.integers(targets);
    const view<const std::int32_t, 2, space> input_view(input.vector().data, sequences, positions),
        target_view(target.vector().data, sequences, positions);
    const auto losses = s.master(1, tokens, 2);
    model.token_losses(losses.vector(), input_view, target_view);
    const auto next = s.master(1, 61, 3);
    auto cache = model.make_cache(positions);
    for (const index_t end : {20, 31, 32})
      model.extend(cache, view<const std::int32_t, 1, space>(input.vector()).rows(cache.length, end), next.vector());
    const auto gates = s.master(2 * tokens, 9, 4);
    model.gate_values(view<M, 4, space>(gates.vector().data, 2, tokens, 3, 3), input_view);
    model.clear_metrics();
    model.forward_backward(input_view, target_view, {.token_scale = 1.0 / 64});
    const pass_metrics metrics = model.metrics();

    // Roundings to S one after another: 8 in a block's forward pass and 4 in a stitch's, as many backward, of 2 of
    // each.
    const double n = 16 * 256, r = 48;
    results all{{"losses", wide(losses), false, n, r},
                {"cached logits", wide(next), false, n, r},
                {"gate values", wide(gates), false, n, r},
                {"loss", one_row(std::vector<double>{metrics.loss_sum}), false, n, r}};
    const auto gradients = wide(s.ctx, model.parameters().gradients());
    for (const tensor_entry& entry : model.layout().tensors) {
      tensor<double> part(1, entry.size());
      for (index_t i = 0; i < entry.size(); ++i) part(0, i) = gradients.at(0, entry.offset + i);
      all.push_back({"gradient of " + entry.name, part, false, n, r});
    }
    return all;
  }
};

template <class S, class Ctx, class Exact>
void check_stitched(Ctx& ctx, Exact& exact) {
  check_body<S>(ctx, exact, "hub and spokes", stitched_body<hub_and_spokes>{});
  check_body<S>(ctx, exact, "all to all", stitched_body<all_to_all>{{.hub = 1}});
}

}  // namespace graft::test
