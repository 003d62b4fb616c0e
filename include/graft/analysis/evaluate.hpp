// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Evaluation on held-out text: cross entropy, bits per byte, and how often the tokens of a domain go to each expert.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <numbers>
#include <vector>

#include <graft/backend/buffer.hpp>
#include <graft/io/batch.hpp>
#include <graft/models/transformer.hpp>

namespace graft {

struct evaluation {
  double nats = 0;       // summed cross entropy
  index_t tokens = 0;    // predicted
  index_t bytes = 0;     // of text that they stand for
  double seconds = 0;
  std::vector<double> expert_counts;  // (L, E); empty for a dense model

  // The measure that does not depend on the tokenizer. The end of a document costs nats and stands for no byte.
  double bits_per_byte() const { return nats / std::numbers::ln2 / static_cast<double>(bytes); }
  double loss() const { return nats / static_cast<double>(tokens); }
};

// Runs the model over all windows, `rows` at a time. Order: windows in order, sums in fp64; the result does not depend on rows.
template <class Model>
evaluation evaluate(Model& model, evaluation_windows& windows, index_t positions, index_t rows) {
  using M = typename Model::M;
  using space = typename Model::space;
  auto& context = model.context();
  buffer<std::int32_t, space> inputs(rows * positions), targets(rows * positions);
  buffer<M, space> losses(rows * positions);
  std::vector<M> host(static_cast<std::size_t>(rows * positions));
  token_batch batch;
  evaluation result;
  const auto start = std::chrono::steady_clock::now();
  for (index_t first = 0; first < windows.size(); first += rows) {
    // A last batch of fewer windows is a smaller one: padding would be routed and counted.
    const index_t count = std::min(rows, windows.size() - first);
    const evaluation_count filled = windows.fill(first, count, batch);
    model.clear_metrics();
    const view<std::int32_t, 1, space> input_view = inputs.view(count * positions), target_view = targets.view(count * positions);
    copy_from_host(context, input_view, batch.inputs.data());
    copy_from_host(context, target_view, batch.targets.data());
    model.token_losses(losses.view(count * positions), reshape(view<const std::int32_t, 1, space>(input_view), count, positions),
                       reshape(view<const std::int32_t, 1, space>(target_view), count, positions));
    copy_to_host(context, host.data(), losses.view(count * positions));
    for (index_t i = 0; i < count * positions; ++i) result.nats += static_cast<double>(host[static_cast<std::size_t>(i)]);
    result.tokens += filled.tokens;
    result.bytes += filled.bytes;
    const pass_metrics metrics = model.metrics();
    result.expert_counts.resize(metrics.expert_counts.size());
    for (std::size_t i = 0; i < metrics.expert_counts.size(); ++i) result.expert_counts[i] += metrics.expert_counts[i];
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace graft
