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
  double nats = 0;     // summed cross entropy
  index_t tokens = 0;  // predicted
  index_t bytes = 0;   // of text that they stand for
  double seconds = 0;
  std::vector<layer_load> load;  // of every block; counts are empty for a dense one

  // The measure that does not depend on the tokenizer. The end of a document costs nats and stands for no byte.
  double bits_per_byte() const { return nats / std::numbers::ln2 / static_cast<double>(bytes); }
  double loss() const { return nats / static_cast<double>(tokens); }
};

// Runs the model over all windows, up to `rows` at a time. Order: windows in order, sums in fp64. A window that ends
// early is a batch of its own length: padding would be routed and counted. Errors: tokens that the model has no row
// for, text of no bytes.
template <class Model>
evaluation evaluate(Model& model, evaluation_windows& windows, index_t rows) {
  using M = typename Model::M;
  using space = typename Model::space;
  const index_t positions = windows.positions();
  GRAFT_CHECK(rows > 0, "evaluate: expected at least one row, got ", rows);
  GRAFT_CHECK(positions <= model.shape().positions, "evaluate: expected windows of at most the ",
              model.shape().positions, " positions that the model is meant for, got ", positions);
  auto& context = model.context();
  buffer<std::int32_t, space> inputs(rows * positions), targets(rows * positions);
  buffer<M, space> losses(rows * positions);
  std::vector<M> host(static_cast<std::size_t>(rows * positions));
  token_batch batch;
  evaluation result;
  const auto start = std::chrono::steady_clock::now();
  for (index_t first = 0, count = 0; first < windows.size(); first += count) {
    count = 1;
    while (count < rows && first + count < windows.size() && windows.length(first) == positions &&
           windows.length(first + count) == positions)
      ++count;
    const index_t length = windows.length(first), tokens = count * length;
    const evaluation_count filled = windows.fill(first, count, batch);
    for (index_t i = 0; i < tokens; ++i)
      GRAFT_CHECK(batch.inputs[static_cast<std::size_t>(i)] < model.shape().vocabulary &&
                      batch.targets[static_cast<std::size_t>(i)] < model.shape().vocabulary,
                  "evaluate: expected tokens below the vocabulary of ", model.shape().vocabulary, ", got ",
                  batch.inputs[static_cast<std::size_t>(i)], " and ", batch.targets[static_cast<std::size_t>(i)]);
    model.clear_metrics();
    const view<std::int32_t, 1, space> input_view = inputs.view(tokens), target_view = targets.view(tokens);
    copy_from_host(context, input_view, batch.inputs.data());
    copy_from_host(context, target_view, batch.targets.data());
    model.token_losses(losses.view(tokens), reshape(view<const std::int32_t, 1, space>(input_view), count, length),
                       reshape(view<const std::int32_t, 1, space>(target_view), count, length));
    copy_to_host(context, host.data(), losses.view(tokens));
    for (index_t i = 0; i < tokens; ++i) result.nats += static_cast<double>(host[static_cast<std::size_t>(i)]);
    result.tokens += filled.tokens;
    result.bytes += filled.bytes;
    const pass_metrics metrics = model.metrics();
    result.load.resize(metrics.load.size());
    for (std::size_t i = 0; i < metrics.load.size(); ++i) result.load[i] += metrics.load[i];
  }
  GRAFT_CHECK(result.bytes > 0, "evaluate: the windows stand for no bytes of text");
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace graft
