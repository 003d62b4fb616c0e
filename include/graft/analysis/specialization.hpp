// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Specialization: which domains and which tokens of the vocabulary go to which expert.
//
//   domain(i, D)     = N_{i,D} / N_D      N_D: tokens of domain D,        N_{i,D}: those that expert i is selected for
//   weight(i, D)     = sum of expert i's weights over D / N_D
//   vocabulary(i, x) = N_{i,x} / N_x      N_x: occurrences of token id x, N_{i,x}: those that expert i is selected for
//
// Without empty slots domain and vocabulary sum to k over the experts, chance is k / E; weight sums to what a token's
// weights sum to, and tells experts apart that are all selected.
// Source: Muennighoff et al., "OLMoE: open mixture-of-experts language models", 2024, arXiv 2409.02060, sections 5.3
// and 5.4.

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include <graft/analysis/routing_trace.hpp>
#include <graft/analysis/share_matrix.hpp>
#include <graft/models/layer_load.hpp>

namespace graft {

// What an expert has of a token that it is selected for: the token, or its weight.
enum class domain_share { tokens, weights };

// (domains, E) of the entry `index` of the traces' blocks. Padding is no token.
// Errors: no domain, a domain without tokens, traces of different models.
inline share_matrix domain_specialization(const std::vector<routing_trace>& domains, std::size_t index,
                                          domain_share share = domain_share::tokens) {
  GRAFT_CHECK(!domains.empty() && index < domains.front().blocks.size(),
              "domain_specialization: expected an entry of the blocks with experts, got ", index, " of ",
              domains.empty() ? 0 : domains.front().blocks.size());
  share_matrix result(static_cast<index_t>(domains.size()), domains.front().blocks[index].experts);
  for (std::size_t d = 0; d < domains.size(); ++d) {
    GRAFT_CHECK(index < domains[d].blocks.size() && domains[d].blocks[index].experts == result.columns,
                "domain_specialization: expected traces of one model");
    const block_routing& block = domains[d].blocks[index];
    detail::check_block("domain_specialization", block);
    const auto row = static_cast<index_t>(d);
    for (std::size_t i = 0; i < block.selected.size(); ++i)
      if (const std::int32_t expert = block.selected[i]; expert >= 0)
        result(row, expert) += share == domain_share::tokens ? 1.0 : static_cast<double>(block.weights[i]);
    const auto tokens = std::count_if(domains[d].ids.begin(), domains[d].ids.end(), [](auto id) { return id >= 0; });
    GRAFT_CHECK(tokens > 0, "domain_specialization: expected tokens of every domain, got none of domain ", d);
    for (index_t i = 0; i < result.columns; ++i) result(row, i) /= static_cast<double>(tokens);
  }
  return result;
}

// The same from the counts that evaluate() returns: the load of one block for every domain.
inline share_matrix domain_specialization(const std::vector<layer_load>& domains) {
  GRAFT_CHECK(!domains.empty() && !domains.front().counts.empty(),
              "domain_specialization: expected the load of a block with experts");
  share_matrix result(static_cast<index_t>(domains.size()), static_cast<index_t>(domains.front().counts.size()));
  for (std::size_t d = 0; d < domains.size(); ++d) {
    GRAFT_CHECK(domains[d].counts.size() == domains.front().counts.size() && domains[d].tokens > 0,
                "domain_specialization: expected ", domains.front().counts.size(), " experts and tokens, got ",
                domains[d].counts.size(), " experts and ", domains[d].tokens, " tokens of domain ", d);
    for (std::size_t i = 0; i < domains[d].counts.size(); ++i)
      result(static_cast<index_t>(d), static_cast<index_t>(i)) = domains[d].counts[i] / domains[d].tokens;
  }
  return result;
}

// Which of a token's experts count.
enum class counted_slots { all, largest };  // largest: the one of the largest weight, k = 1

struct vocabulary_options {
  counted_slots slots = counted_slots::all;  // of the lists
  index_t least_occurrences = 10;            // of an id in a list
  std::size_t longest = 20;                  // ids in a list
};

struct specific_token {
  std::int32_t id = 0;
  double share = 0;         // vocabulary(i, id)
  index_t occurrences = 0;  // N_id
};

struct vocabulary_report {
  double mean = 0;                                 // over token ids, of the largest vocabulary(i, x) with k = 1
  index_t types = 0;                               // ids that occur
  std::vector<std::vector<specific_token>> lists;  // of each expert, most specific first
};

// Of the entry `index` of the trace's blocks. The mean is over ids, not occurrences: rare ones count as much as common
// ones. Order: lists by descending share, then more occurrences, then the lower id. An id that an expert never gets is
// not in its list. Errors: an index that the trace does not have.
inline vocabulary_report vocabulary_specialization(const routing_trace& trace, std::size_t index,
                                                   const vocabulary_options& options = {}) {
  GRAFT_CHECK(index < trace.blocks.size(), "vocabulary_specialization: expected an entry of the ", trace.blocks.size(),
              " blocks with experts, got ", index);
  const block_routing& block = trace.blocks[index];
  detail::check_block("vocabulary_specialization", block);
  GRAFT_CHECK(block.tokens() == trace.tokens(), "vocabulary_specialization: expected the routing of ", trace.tokens(),
              " tokens, got that of ", block.tokens());
  const auto experts = static_cast<std::size_t>(block.experts);
  struct counts {
    index_t occurrences = 0;
    std::vector<index_t> listed, largest;  // (E)
  };
  std::map<std::int32_t, counts> ids;
  for (index_t token = 0; token < trace.tokens(); ++token) {
    const std::int32_t id = trace.ids[static_cast<std::size_t>(token)];
    if (id < 0) continue;
    counts& own = ids[id];
    own.listed.resize(experts);
    own.largest.resize(experts);
    ++own.occurrences;
    const std::int32_t main = block.main_expert(token);
    if (main >= 0) ++own.largest[static_cast<std::size_t>(main)];
    for (index_t slot = 0; slot < block.slots; ++slot)
      if (const std::int32_t expert = block.expert(token, slot); expert >= 0)
        ++own.listed[static_cast<std::size_t>(expert)];
  }
  vocabulary_report report;
  report.types = static_cast<index_t>(ids.size());
  report.lists.resize(experts);
  for (const auto& [id, own] : ids) {
    const auto all = static_cast<double>(own.occurrences);
    report.mean += static_cast<double>(*std::max_element(own.largest.begin(), own.largest.end())) / all;
    if (own.occurrences < options.least_occurrences) continue;
    for (std::size_t i = 0; i < experts; ++i) {
      const index_t count = options.slots == counted_slots::all ? own.listed[i] : own.largest[i];
      if (count > 0) report.lists[i].push_back({id, static_cast<double>(count) / all, own.occurrences});
    }
  }
  if (report.types > 0) report.mean /= static_cast<double>(report.types);
  for (std::vector<specific_token>& list : report.lists) {
    std::sort(list.begin(), list.end(), [](const specific_token& a, const specific_token& b) {
      if (a.share != b.share) return a.share > b.share;
      return a.occurrences != b.occurrences ? a.occurrences > b.occurrences : a.id < b.id;
    });
    if (list.size() > options.longest) list.resize(options.longest);
  }
  return report;
}

}  // namespace graft
