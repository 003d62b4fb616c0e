// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Generation of text, token by token: greedy, temperature, top-k, top-p.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

#include <graft/backend/buffer.hpp>
#include <graft/core/error.hpp>
#include <graft/core/philox.hpp>
#include <graft/core/view.hpp>

namespace graft {

struct generation_options {
  index_t tokens = 128;      // to add
  double temperature = 0.8;  // 0: greedy
  index_t top_k = 0;         // only the most likely so many; 0: no limit
  double top_p = 1.0;        // only the most likely whose probabilities reach this sum
  std::uint64_t seed = 0;
  std::int32_t end_token = -1;  // stops after this token; -1: never
  index_t ids = 0;              // only ids below this, where the model has padding rows; 0: all
};

// Draws a token from logits. A function of the arguments: (seed, position) decide the random number.
// Order: ties go to the lower id. Errors: logits that are not numbers.
template <class M>
std::int32_t sample_token(const M* logits, index_t vocabulary, const generation_options& options,
                          std::uint64_t position) {
  const index_t count = options.ids > 0 ? std::min(options.ids, vocabulary) : vocabulary;
  std::vector<index_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), index_t{0});
  for (index_t i = 0; i < count; ++i)
    GRAFT_CHECK(std::isfinite(static_cast<double>(logits[i])), "sample_token: expected finite logits, got ", logits[i],
                " for token ", i);
  std::stable_sort(order.begin(), order.end(), [&](index_t a, index_t b) { return logits[a] > logits[b]; });
  if (options.temperature <= 0) return static_cast<std::int32_t>(order[0]);

  const std::size_t kept = options.top_k > 0 ? static_cast<std::size_t>(std::min(options.top_k, count)) : order.size();
  std::vector<double> weights(kept);
  for (std::size_t i = 0; i < kept; ++i)
    weights[i] =
        std::exp((static_cast<double>(logits[order[i]]) - static_cast<double>(logits[order[0]])) / options.temperature);
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::size_t nucleus = 0;
  double sum = 0;
  while (nucleus < kept && (nucleus == 0 || sum < options.top_p * all)) sum += weights[nucleus++];
  const random_source random{options.seed, random_stream::sampling};
  double left = random_source::uniform(random.words(0, position).word[0]) * sum;
  for (std::size_t i = 0; i < nucleus; ++i)
    if ((left -= weights[i]) <= 0) return static_cast<std::int32_t>(order[i]);
  return static_cast<std::int32_t>(order[nucleus - 1]);
}

// Continues prompt by up to options.tokens tokens; each is given to `emit` as it is made. Returns the new tokens.
// The model sees the last shape().positions tokens. Cost: one forward pass over the context for each token.
template <class Model>
std::vector<std::int32_t> generate(Model& model, std::vector<std::int32_t> prompt, const generation_options& options,
                                   const std::function<void(std::int32_t)>& emit = {}) {
  using M = typename Model::M;
  using space = typename Model::space;
  GRAFT_CHECK(
      options.tokens >= 0 && options.temperature >= 0 && options.top_k >= 0 && options.top_p > 0 && options.top_p <= 1,
      "generate: expected tokens, temperature and top_k of at least 0 and top_p in (0, 1], got tokens=", options.tokens,
      ", temperature=", options.temperature, ", top_k=", options.top_k, ", top_p=", options.top_p);
  GRAFT_CHECK(!prompt.empty(), "generate: expected a prompt of at least one token, got none");
  auto& context = model.context();
  const index_t vocabulary = model.shape().vocabulary, limit = model.shape().positions;
  for (const std::int32_t token : prompt)
    GRAFT_CHECK(token >= 0 && token < vocabulary, "generate: expected prompt tokens below the vocabulary of ",
                vocabulary, ", got ", token);
  buffer<std::int32_t, space> inputs(limit);
  buffer<M, space> logits(vocabulary);
  std::vector<M> host(static_cast<std::size_t>(vocabulary));
  std::vector<std::int32_t> made;
  for (index_t i = 0; i < options.tokens; ++i) {
    const auto length = static_cast<index_t>(prompt.size());
    const index_t seen = std::min(length, limit);
    copy_from_host(context, inputs.view(seen), prompt.data() + (length - seen));
    model.next_token_logits(logits.view(1, vocabulary),
                            reshape(view<const std::int32_t, 1, space>(inputs.view(seen)), 1, seen));
    copy_to_host(context, host.data(), logits.view());
    const std::int32_t token = sample_token(host.data(), vocabulary, options, static_cast<std::uint64_t>(length));
    prompt.push_back(token);
    made.push_back(token);
    if (emit) emit(token);
    if (token == options.end_token) break;
  }
  return made;
}

}  // namespace graft
