// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// --discover K PATH: domains that are found in text without labels (c-BTM) instead of named by the user. A program has
// a discover_choice among its options and calls domains_from(texts, choice, data, seed, threads), whose domains
// prepare_domains takes as any others. Rules for the default domains hold only where choice.wanted() is false.

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "common/data.hpp"
#include "common/options.hpp"

namespace examples {

struct discover_choice {
  std::pair<index_t, std::string> clusters_and_path{0, ""};

  bool wanted() const { return !clusters_and_path.second.empty(); }
  index_t clusters() const { return clusters_and_path.first; }
  fs::path path() const { return clusters_and_path.second; }
};

inline void add_discover_flag(CLI::App& app, discover_choice& choice) {
  app.add_option("--discover", choice.clusters_and_path,
                 "finds K domains in a file or folder of text without labels (tf-idf, balanced k-means); "
                 "without --domain beside it, btm also makes the forest c-btm, weighed by them")
      ->type_name("K PATH");
}

// Where the fitted clusters of a run stand: graft::load_document_clusters reads them for the weights of generation.
inline fs::path discovered_clusters(const fs::path& data) { return data / "discovered" / "discovered.safetensors"; }

// Finds the domains, or finds them found by an earlier run, and says what they are. Files go to data/discovered.
// Errors: those of graft::discover_domains, with --discover for their place.
std::vector<graft::domain_source> discover(const discover_choice& choice, const fs::path& data, std::uint64_t seed,
                                           int threads);

// NAME=PATH texts and the discovered domains after them; the default domains when there is neither.
inline std::vector<graft::domain_source> domains_from(const std::vector<std::string>& texts,
                                                      const discover_choice& choice, const fs::path& data,
                                                      std::uint64_t seed, int threads) {
  if (!choice.wanted()) return domains_from(texts);
  std::vector<graft::domain_source> sources;
  if (!texts.empty()) sources = domains_from(texts);
  for (graft::domain_source& source : discover(choice, data, seed, threads)) sources.push_back(std::move(source));
  return sources;
}

}  // namespace examples
