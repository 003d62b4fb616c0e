// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Domains as the programs take them: prepared once into token files in a folder, then read from there.

#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include <graft/io/corpus.hpp>
#include <graft/io/default_domains.hpp>

#include "common/engine.hpp"
#include "common/options.hpp"

namespace examples {

// NAME=PATH texts, or the default domains when there are none.
inline std::vector<graft::domain_source> domains_from(const std::vector<std::string>& texts) {
  if (texts.empty()) return graft::default_domains();
  std::vector<graft::domain_source> sources;
  for (const std::string& text : texts) sources.push_back(parse_domain(text));
  return sources;
}

// Prepares every domain (or finds it prepared) and says what it has.
inline std::vector<graft::corpus> prepare_domains(const std::vector<graft::domain_source>& sources, const fs::path& folder, index_t max_bytes) {
  std::vector<graft::corpus> prepared;
  for (const graft::domain_source& source : sources) {
    for (const graft::corpus& other : prepared)
      GRAFT_CHECK(other.name != source.name, "--domain: expected domains of different names, got ", source.name, " twice");
    prepared.push_back(graft::prepare_corpus(source, folder, {.max_bytes = max_bytes}));
    std::cout << "  " << graft::describe(prepared.back()) << std::endl;
  }
  return prepared;
}

inline std::vector<graft::weighted_tokens> training_data(const std::vector<graft::corpus>& domains, const std::vector<double>& weights = {}) {
  std::vector<graft::weighted_tokens> data;
  for (std::size_t i = 0; i < domains.size(); ++i) {
    const double weight = weights.empty() ? 1.0 : weights[i];
    if (weight > 0) data.push_back({domains[i].name, domains[i].train.path, weight});
  }
  return data;
}

inline std::vector<held_out_domain> held_out_data(const std::vector<graft::corpus>& domains) {
  std::vector<held_out_domain> data;
  for (const graft::corpus& domain : domains) data.push_back({domain.name, domain.held_out.path});
  return data;
}

}  // namespace examples
