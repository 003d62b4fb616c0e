// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Batches of sequences from token files: random windows to train on, and the fixed windows that every model is
// evaluated on.

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/core/philox.hpp>
#include <graft/io/byte_tokenizer.hpp>
#include <graft/io/token_file.hpp>

namespace graft {

// A target that counts in no loss.
inline constexpr std::int32_t ignored_target = -1;

// Tokens to read and to predict, row by row. The vectors keep their memory from batch to batch.
struct token_batch {
  std::vector<std::int32_t> inputs;   // (B, S)
  std::vector<std::int32_t> targets;  // (B, S), ignored_target where there is nothing to predict
};

// Random windows from one domain or a mixture of several. A window is a function of (seed, step, sequence) alone, so
// that a resumed run, another number of processes or micro-batches, and any call order read the same data.
//
// Order: sequence i of a step takes the domain at the quantile ((i * stride mod B) + u) / B of the weights, u uniform
// per step and stride prime to B: each domain gets its share of every step, rounded up or down, and runs of sequences
// get nearly theirs.
class batch_sampler {
 public:
  // weights: one per domain, not negative, in any unit; empty: the same for all.
  // Errors: no domain, weights that do not fit.
  explicit batch_sampler(std::vector<token_file> domains, std::vector<double> weights = {}, std::uint64_t seed = 0)
      : domains_(std::move(domains)), random_{seed, random_stream::data} {
    GRAFT_CHECK(!domains_.empty(), "batch_sampler: expected at least one domain, got 0");
    if (weights.empty()) weights.assign(domains_.size(), 1.0);
    GRAFT_CHECK(weights.size() == domains_.size(), "batch_sampler: expected one weight per domain, got ",
                weights.size(), " weights, domains=", domains_.size());
    double total = 0;
    for (const double weight : weights) {
      GRAFT_CHECK(weight >= 0 && weight <= 1e300,
                  "batch_sampler: expected weights that are finite and not negative, got ", weight);
      total += weight;
    }
    GRAFT_CHECK(total > 0, "batch_sampler: expected a positive weight, got only zeros");
    double below = 0;
    for (std::size_t d = 0; d < weights.size(); ++d) {
      if (weights[d] > 0) last_ = d;
      below += weights[d];
      below_.push_back(below / total);
    }
    positive_.resize(weights.size());
    for (std::size_t d = 0; d < weights.size(); ++d) positive_[d] = weights[d] > 0;
  }

  std::size_t domains() const { return domains_.size(); }

  // The domain of a sequence of a step of step_sequences.
  std::size_t domain_of(index_t step, index_t sequence, index_t step_sequences) const {
    index_t stride =
        std::max<index_t>(1, static_cast<index_t>(static_cast<double>(step_sequences) * 0.6180339887498949));
    while (std::gcd(stride, step_sequences) != 1) ++stride;
    const index_t place = sequence * stride % step_sequences;
    const double u = random_.words(static_cast<std::uint64_t>(step), ~std::uint64_t{0}).word[0] * (1.0 / 4294967296.0);
    const double quantile = (static_cast<double>(place) + u) / static_cast<double>(step_sequences);
    for (std::size_t d = 0; d < last_; ++d)
      if (positive_[d] && quantile < below_[d]) return d;
    return last_;
  }

  // Sequences [first, first + count) of a step of step_sequences, each a window of positions + 1 tokens at a uniformly
  // random place of its domain.
  // Shapes: batch.inputs and batch.targets become (count, positions).
  // Errors: a domain with fewer tokens than a window, with its path.
  void sample(index_t step, index_t first, index_t count, index_t step_sequences, index_t positions,
              token_batch& batch) {
    GRAFT_CHECK(positions > 0 && count >= 0 && first >= 0 && first + count <= step_sequences &&
                    step_sequences < (index_t{1} << 31),
                "batch_sampler: expected sequences within a step of fewer than 2^31, got first=", first,
                ", count=", count, ", step_sequences=", step_sequences, ", positions=", positions);
    batch.inputs.resize(static_cast<std::size_t>(count * positions));
    batch.targets.resize(static_cast<std::size_t>(count * positions));
    window_.resize(static_cast<std::size_t>(positions + 1));
    for (index_t row = 0; row < count; ++row) {
      const index_t sequence = first + row;
      const token_file& domain = domains_[domain_of(step, sequence, step_sequences)];
      GRAFT_CHECK(domain.size() > positions, domain.path(), ": expected at least ", positions + 1,
                  " tokens for a window of ", positions, " positions and the next token, found ", domain.size());
      const auto places = static_cast<std::uint64_t>(domain.size() - positions);
      const auto at = static_cast<index_t>(
          random_.below(places, static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(sequence)));
      domain.read(at, window_);
      std::copy(window_.begin(), window_.end() - 1, batch.inputs.begin() + row * positions);
      std::copy(window_.begin() + 1, window_.end(), batch.targets.begin() + row * positions);
    }
  }
  // All sequences of a step.
  void sample(index_t step, index_t sequences, index_t positions, token_batch& batch) {
    sample(step, 0, sequences, sequences, positions, batch);
  }

 private:
  std::vector<token_file> domains_;
  std::vector<double> below_;   // cumulative shares
  std::vector<char> positive_;  // domains of weight 0 are never drawn, whatever the rounding
  std::size_t last_ = 0;        // the last domain of positive weight
  random_source random_;
  std::vector<std::int32_t> window_;
};

// What a batch of an evaluation covers.
struct evaluation_count {
  index_t tokens = 0;  // targets that count
  index_t bytes = 0;   // of text that they stand for; <|endoftext|> stands for none
};

// The windows of an evaluation: a held-out file cut into consecutive windows of S predicted tokens each that do not
// overlap, the last one filled up with ignored targets. Beyond max_tokens, as many windows as fit are taken, spread
// evenly over the file. They depend on the file, S and max_tokens alone and so are the same for every model. Every
// token but the first of a window's stretch is predicted from what stands before it in the window.
class evaluation_windows {
 public:
  // max_tokens: 0 takes the whole file. lengths: bytes of text by token id.
  // Errors: fewer than two tokens.
  evaluation_windows(token_file file, index_t positions, index_t max_tokens = 0,
                     std::vector<std::int32_t> lengths = byte_lengths(byte_tokenizer()))
      : file_(std::move(file)), positions_(positions), lengths_(std::move(lengths)) {
    GRAFT_CHECK(positions > 0 && max_tokens >= 0,
                "evaluation_windows: expected positions > 0 and max_tokens >= 0, got ", positions, " and ", max_tokens);
    GRAFT_CHECK(file_.size() >= 2, file_.path(), ": expected at least 2 held-out tokens, found ", file_.size());
    all_ = (file_.size() - 1 + positions - 1) / positions;
    taken_ = max_tokens == 0 ? all_ : std::min(all_, std::max<index_t>(1, max_tokens / positions));
  }

  index_t size() const { return taken_; }
  index_t positions() const { return positions_; }
  // Predicted tokens of window i: positions(), but for a last one that ends with the file.
  index_t length(index_t i) const { return std::min(positions_, file_.size() - 1 - place(i) * positions_); }

  // Windows [first, first + rows). Rows past the last window are all ignored, so that batches can keep one shape.
  // Shapes: batch.inputs and batch.targets become (rows, S).
  evaluation_count fill(index_t first, index_t rows, token_batch& batch) {
    GRAFT_CHECK(first >= 0 && rows >= 0, "evaluation_windows: expected first >= 0 and rows >= 0, got ", first, " and ",
                rows);
    batch.inputs.assign(static_cast<std::size_t>(rows * positions_), 0);
    batch.targets.assign(static_cast<std::size_t>(rows * positions_), ignored_target);
    evaluation_count count;
    for (index_t row = 0; row < rows && first + row < taken_; ++row) {
      const index_t begin = place(first + row) * positions_;
      const index_t predicted = std::min(positions_, file_.size() - 1 - begin);
      window_.resize(static_cast<std::size_t>(predicted + 1));
      file_.read(begin, window_);
      std::copy(window_.begin(), window_.end() - 1, batch.inputs.begin() + row * positions_);
      std::copy(window_.begin() + 1, window_.end(), batch.targets.begin() + row * positions_);
      count.tokens += predicted;
      for (std::size_t i = 1; i < window_.size(); ++i) {
        const auto id = static_cast<std::size_t>(window_[i]);
        GRAFT_CHECK(id < lengths_.size(), file_.path(), ": expected tokens from 0 to ", lengths_.size() - 1, ", found ",
                    id);
        count.bytes += lengths_[id];
      }
    }
    return count;
  }

 private:
  // floor(i * all / taken)
  index_t place(index_t i) const { return i * (all_ / taken_) + i * (all_ % taken_) / taken_; }

  token_file file_;
  index_t positions_, all_ = 0, taken_ = 0;
  std::vector<std::int32_t> lengths_, window_;
};

}  // namespace graft
