// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "common/data.hpp"

#include <iostream>
#include <set>

#include <graft/io/default_domains.hpp>

#include "common/options.hpp"

namespace examples {

std::vector<graft::domain_source> domains_from(const std::vector<std::string>& texts) {
  if (texts.empty()) return graft::default_domains();
  std::vector<graft::domain_source> sources;
  for (const std::string& text : texts) sources.push_back(parse_domain(text));
  return sources;
}

std::vector<graft::corpus> prepare_domains(const std::vector<graft::domain_source>& sources, const fs::path& folder,
                                           index_t max_bytes, index_t positions) {
  std::set<std::string> names;
  for (const graft::domain_source& source : sources) {
    GRAFT_CHECK(names.insert(source.name).second, "--domain: expected domains of different names, got ", source.name,
                " twice");
    GRAFT_CHECK(source.name != "average",
                "--domain: expected another name than average, which is a column of the table");
    graft::walk_domain(source);
  }
  const new_folders cleared_when_empty(folder);
  std::vector<graft::corpus> prepared;
  for (const graft::domain_source& source : sources) {
    prepared.push_back(graft::prepare_corpus(source, folder, {.max_bytes = max_bytes}));
    const graft::corpus& domain = prepared.back();
    std::cerr << "  " << graft::describe(domain) << std::endl;
    const std::string place = "domain '" + source.name + "': " + source.path.string();
    GRAFT_CHECK(positions == 0 || domain.train.tokens > positions, place, ": expected at least ", positions + 1,
                " tokens to train on (a window of ", positions, " and the next), found ", domain.train.tokens);
    GRAFT_CHECK(domain.held_out.bytes >= 2, place, ": expected at least 2 bytes of held-out text, found ",
                domain.held_out.bytes);
  }
  return prepared;
}

std::vector<graft::weighted_tokens> training_data(const std::vector<graft::corpus>& domains,
                                                  const std::vector<double>& weights) {
  std::vector<graft::weighted_tokens> data;
  for (std::size_t i = 0; i < domains.size(); ++i) {
    const double weight = weights.empty() ? 1.0 : weights[i];
    if (weight > 0) data.push_back({domains[i].name, domains[i].train.path, weight});
  }
  return data;
}

std::vector<held_out_domain> held_out_data(const std::vector<graft::corpus>& domains) {
  std::vector<held_out_domain> data;
  for (const graft::corpus& domain : domains) data.push_back({domain.name, domain.held_out.path});
  return data;
}

}  // namespace examples
