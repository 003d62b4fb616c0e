// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Forests and expert routing on any context against the CPU in fp64. Bodies as in op_laws.hpp.

#include <memory>
#include <vector>

#include <graft/models/routed_forest.hpp>

#include "model_laws.hpp"

namespace graft::test {

// Three small transformers and a batch of texts.
template <class Stage>
struct forest_stage {
  using T = typename Stage::storage;
  using space = typename Stage::space;
  using compute_type = compute_on<T, std::remove_reference_t<decltype(std::declval<Stage>().ctx)>>;
  using member_type = dense_transformer<compute_type>;
  static constexpr index_t sequences = 3, positions = 32, tokens = sequences * positions;

  std::vector<std::shared_ptr<member_type>> members;
  resident<std::remove_reference_t<decltype(std::declval<Stage>().ctx)>, std::int32_t> input, target;

  explicit forest_stage(const Stage& s) : input(s.integers(text(0))), target(s.integers(text(1))) {
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      members.push_back(std::make_shared<member_type>(s.ctx, test_shape(0)));
      auto values = s.stored(1, members.back()->layout().size, seed, 0.15).get();
      for (const tensor_entry& entry : members.back()->layout().tensors)
        for (index_t i = 0; entry.columns == 0 && i < entry.size(); ++i) values(0, entry.offset + i) = T(1.0f);
      const auto master = Stage::template as<typename Stage::M>(values);
      copy_from_host(s.ctx, members.back()->parameters().master(), master.values.data());
      members.back()->parameters().refresh(s.ctx);
    }
  }
  static std::vector<std::int32_t> text(index_t shift) {
    const auto all = random_integers(sequences * (positions + 1), 0, 61, 3);
    std::vector<std::int32_t> tokens_of;
    for (index_t b = 0; b < sequences; ++b)
      for (index_t t = 0; t < positions; ++t)
        tokens_of.push_back(all[static_cast<std::size_t>(b * (positions + 1) + t + shift)]);
    return tokens_of;
  }
  auto inputs() const { return view<const std::int32_t, 2, space>(input.vector().data, sequences, positions); }
  auto targets() const { return view<const std::int32_t, 2, space>(target.vector().data, sequences, positions); }
};

// Evidence adds up the errors of 32 losses, at a temperature at which weights stay apart from 0 and 1.
struct forest_body {
  bool update;
  index_t kept;
  template <class Stage>
  results operator()(const Stage& s) const {
    using texts = forest_stage<Stage>;
    using space = typename Stage::space;
    const texts batch(s);
    forest<prefix_posterior, typename texts::compute_type> model(batch.members, {.kept = kept, .temperature = 16});
    model.set_prior(std::vector<double>{1, 2, 3});
    const auto losses = s.master(1, texts::tokens, 2), weights = s.master(texts::tokens, 3, 3),
               next = s.master(texts::sequences, 61, 4), cached = s.master(1, 61, 5);
    model.posteriors(weights.matrix(), batch.inputs(), batch.targets());
    model.update_prior(update ? 0.3 : 0);
    model.token_losses(losses.vector(), batch.inputs(), batch.targets());
    const pass_metrics metrics = model.metrics();
    model.next_token_logits(next.matrix(), batch.inputs());
    auto cache = model.make_cache(texts::positions);
    for (const index_t end : {30, 31, 32})
      model.extend(cache, view<const std::int32_t, 1, space>(batch.input.vector()).rows(cache.length, end),
                   cached.vector());
    const double n = 32 * 16 * 256;
    return {{"losses", wide(losses), false, n},
            {"weights", wide(weights), false, n},
            {"next logits", wide(next), false, n},
            {"cached logits", wide(cached), false, n},
            {"prior", one_row(model.prior()), false, n},
            {"loss", one_row(std::vector<double>{metrics.loss_sum}), false, n},
            {"load", one_row(metrics.load[0].counts), false, n}};
  }
};

struct routed_body {
  template <class Stage>
  results operator()(const Stage& s) const {
    using texts = forest_stage<Stage>;
    const texts batch(s);
    routed_forest<typename texts::compute_type> model(batch.members, {.shortest = 4, .longest = 20});
    const auto values = s.master(1, model.layout().size, 9);
    copy(s.ctx, model.parameters().master(), values.vector());
    model.parameters().refresh(s.ctx);
    model.parameters().set_trainable({});
    const auto losses = s.master(1, texts::tokens, 2);
    model.token_losses(losses.vector(), batch.inputs(), batch.targets());
    model.clear_metrics();
    model.forward_backward(batch.inputs(), batch.targets(), {.token_scale = 1.0 / 160, .at = {.seed = 2, .step = 3}});
    const pass_metrics metrics = model.metrics();
    const double n = 16 * 256;
    return {{"losses", wide(losses), false, n},
            {"gradient", wide(s.ctx, model.parameters().gradients()), false, n},
            {"loss", one_row(std::vector<double>{metrics.loss_sum}), false, n},
            {"load", one_row(metrics.load[0].counts), false}};
  }
};

template <class S, class Ctx, class Exact>
void check_forests(Ctx& ctx, Exact& exact) {
  check_body<S>(ctx, exact, "forest", forest_body{false, 0});
  check_body<S>(ctx, exact, "forest of two a token, updated", forest_body{true, 2});
  check_body<S>(ctx, exact, "expert routing", routed_body{});
}

}  // namespace graft::test
