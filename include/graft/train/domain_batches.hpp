// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Training batches from domains: the batch_sampler of io as the source that a trainer asks.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <graft/core/view.hpp>
#include <graft/io/batch.hpp>
#include <graft/io/token_file.hpp>

namespace graft {

// A domain's training tokens and its share of the sequences, in any scale.
struct weighted_tokens {
  std::string name;
  std::filesystem::path path;
  double weight = 1;
};

// source.fill(step, inputs, targets), a function of the step alone.
class domain_batches {
 public:
  // vocabulary: ids at or above it are refused. Errors: a file that is no token file, or too short for one window.
  domain_batches(const std::vector<weighted_tokens>& domains, std::uint64_t seed, index_t vocabulary)
      : sampler_(open(domains, seed, vocabulary)) {
    std::ostringstream text;
    text.precision(17);
    text << "seed " << seed;
    for (const weighted_tokens& domain : domains)
      text << ", " << domain.name << " (" << token_file(domain.path).size() << " tokens) x " << domain.weight;
    description_ = text.str();
  }

  void fill(index_t step, matrix_view<std::int32_t> inputs, matrix_view<std::int32_t> targets) {
    sampler_.sample(step, inputs.extent(0), inputs.extent(1), batch_);
    std::copy(batch_.inputs.begin(), batch_.inputs.end(), inputs.data);
    std::copy(batch_.targets.begin(), batch_.targets.end(), targets.data);
  }

  // What decides the batches, as text: part of a run's signature.
  const std::string& description() const { return description_; }

 private:
  static batch_sampler open(const std::vector<weighted_tokens>& domains, std::uint64_t seed, index_t vocabulary) {
    std::vector<token_file> files;
    std::vector<double> weights;
    for (const weighted_tokens& domain : domains) {
      files.emplace_back(domain.path, vocabulary);
      weights.push_back(domain.weight);
    }
    return batch_sampler(std::move(files), std::move(weights), seed);
  }

  batch_sampler sampler_;
  token_batch batch_;
  std::string description_;
};

}  // namespace graft
