// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Expert plans: which experts a mix has, what they are called, and from which hidden units of which branches each is
// made. The hidden units of a feed-forward layer work side by side, FFN(x) = sum over units u of
// silu(x . w1_u) (x . w3_u) w2_u, so any set of them is a feed-forward layer of its own.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/core/parameter_spec.hpp>
#include <graft/io/graft_json.hpp>

namespace graft {

// The feed-forward layers of a dense branch (expert -1), or an expert of a branch that is a mixture.
struct branch_expert {
  std::size_t branch = 0;
  int expert = -1;
  auto operator<=>(const branch_expert&) const = default;
};

// Hidden units [begin, end) of it: rows of w1 and w3, columns of w2. end -1: to the last.
struct ffn_piece {
  branch_expert from{};
  index_t begin = 0, end = -1;
  bool whole() const { return begin == 0 && end < 0; }
};

// One expert of a mix: its pieces side by side.
struct mixed_expert {
  std::string name;
  std::string domain;  // empty: none
  std::vector<ffn_piece> pieces;
  std::optional<branch_expert> router{};  // whose row of the router it has; none: a new one
  // New rows with one key are drawn alike, and do not depend on how many experts there are. Empty: drawn by place.
  std::string row_key{};
  double input_scale = 1;      // factor of w1 and w3
  double output_scale = 1;     // factor of w2, and so of what the expert computes
  double noise_share = 0;      // this share of the elements, chosen at random, is drawn anew:
  double noise_stddev = 0.02;  // N(0, noise_stddev^2)
};

// From the branches (names and domains) and the hidden width of each to the experts. name says which, for records.
struct expert_planner {
  std::string name;
  std::function<std::vector<mixed_expert>(const std::vector<expert_card>&, const std::vector<index_t>&)> make;

  explicit operator bool() const { return static_cast<bool>(make); }
  std::vector<mixed_expert> operator()(const std::vector<expert_card>& branches,
                                       const std::vector<index_t>& hidden) const {
    return make(branches, hidden);
  }
};

// Names must differ. Errors: a name twice, an expert without pieces.
inline void check_plan(const std::vector<mixed_expert>& plan) {
  std::set<std::string> names;
  for (const mixed_expert& expert : plan) {
    GRAFT_CHECK(names.insert(expert.name).second, "mix: expected experts of different names, got ", expert.name,
                " twice");
    GRAFT_CHECK(!expert.pieces.empty(), "mix: expert ", expert.name, " is made of nothing");
    GRAFT_CHECK(expert.noise_share >= 0 && expert.noise_share <= 1 && expert.noise_stddev >= 0,
                "mix: expected a noise_share from 0 to 1 and a noise_stddev of at least 0 for expert ", expert.name,
                ", got ", expert.noise_share, " and ", expert.noise_stddev);
  }
}

// Expert i is the feed-forward layers of branch i. Several branches of one domain give it several experts.
inline expert_planner whole_experts() {
  return {"whole", [](const std::vector<expert_card>& branches, const std::vector<index_t>&) {
            std::vector<mixed_expert> plan;
            for (std::size_t b = 0; b < branches.size(); ++b)
              plan.push_back({.name = branches[b].name, .domain = branches[b].domain, .pieces = {{{b}}}});
            return plan;
          }};
}

// Each branch cut along F into so many chunks: N C experts of width F / C, named "math.0", "math.1". The chunks of a
// branch add up to its FFN. A router whose C K weights sum to one gives each 1 / C of what K whole experts would have;
// rescale multiplies w2 by C against that. The paper does not.
// Errors: chunks that do not divide F. Source: BTX, arXiv 2403.07816, section 3.3 ("splitting").
inline expert_planner split_experts(index_t chunks, bool rescale = false) {
  const std::string name = (rescale ? "rescaled_split=" : "split=") + std::to_string(chunks);
  return {name, [chunks, rescale](const std::vector<expert_card>& branches, const std::vector<index_t>& hidden) {
            std::vector<mixed_expert> plan;
            for (std::size_t b = 0; b < branches.size(); ++b) {
              GRAFT_CHECK(chunks >= 1 && hidden[b] % chunks == 0,
                          "split_experts: expected a number of chunks that divides the hidden width, got chunks=",
                          chunks, ", hidden width ", hidden[b], " of ", branches[b].name);
              const index_t width = hidden[b] / chunks;
              for (index_t c = 0; c < chunks; ++c)
                plan.push_back({.name = branches[b].name + "." + std::to_string(c),
                                .domain = branches[b].domain,
                                .pieces = {{{b}, c * width, (c + 1) * width}},
                                .output_scale = rescale ? static_cast<double>(chunks) : 1.0});
            }
            return plan;
          }};
}

// N branches, N experts of width F: expert n is chunk n (of N) of every branch side by side, named "blend.n", with no
// domain. The experts add up to the sum of the branches' FFNs.
// Errors: a hidden width that N does not divide. Source: BTX, arXiv 2403.07816, section 3.3 ("blending").
inline expert_planner blended_experts() {
  return {"blend", [](const std::vector<expert_card>& branches, const std::vector<index_t>& hidden) {
            const auto count = static_cast<index_t>(branches.size());
            std::vector<mixed_expert> plan;
            for (index_t n = 0; n < count; ++n) {
              mixed_expert expert{.name = "blend." + std::to_string(n), .domain = {}, .pieces = {}};
              for (std::size_t b = 0; b < branches.size(); ++b) {
                GRAFT_CHECK(
                    hidden[b] % count == 0,
                    "blended_experts: expected a hidden width that the number of branches divides, got hidden width ",
                    hidden[b], " of ", branches[b].name, ", branches=", count);
                const index_t width = hidden[b] / count;
                expert.pieces.push_back({{b}, n * width, (n + 1) * width});
              }
              plan.push_back(std::move(expert));
            }
            return plan;
          }};
}

// counts[i] experts from branch i, so that a hard domain has more of them than an easy one; those of a branch with
// several are named "math.0", "math.1". Copies differ by their rows of the router and by noise (none for the first).
// With one branch this is sparse upcycling. Errors: a count below 1, not one for each branch.
// Source: Komatsuzaki et al., "Sparse upcycling", 2022, arXiv 2212.05055; the noise (half of the elements,
// N(0, 0.02^2)): Muennighoff et al., "OLMoE", 2024, arXiv 2409.02060, section 4.1.5, where it did not help.
inline expert_planner counted_experts(std::vector<index_t> counts, double noise_share = 0, double noise_stddev = 0.02) {
  std::ostringstream name;
  name.precision(17);
  for (const index_t count : counts) name << (name.tellp() > 0 ? "," : "counts=") << count;
  if (noise_share > 0) name << " noise_share=" << noise_share << " noise_stddev=" << noise_stddev;
  return {name.str(), [=](const std::vector<expert_card>& branches, const std::vector<index_t>&) {
            GRAFT_CHECK(counts.size() == branches.size(), "counted_experts: expected one count for each of ",
                        branches.size(), " branches, got ", counts.size());
            std::vector<mixed_expert> plan;
            for (std::size_t b = 0; b < branches.size(); ++b) {
              GRAFT_CHECK(counts[b] >= 1, "counted_experts: expected at least one expert of ", branches[b].name,
                          ", got ", counts[b]);
              for (index_t copy = 0; copy < counts[b]; ++copy)
                plan.push_back({.name = branches[b].name + (counts[b] > 1 ? "." + std::to_string(copy) : ""),
                                .domain = branches[b].domain,
                                .pieces = {{{b}}},
                                .noise_share = copy > 0 ? noise_share : 0.0,
                                .noise_stddev = noise_stddev});
            }
            return plan;
          }};
}

// Fine-grained upcycling: each branch cut into G shards (granularity) and every shard copied E times (expansion):
// experts "math.e.g". The G shards of a copy have one row of the router between them (a virtual group): their logits
// are equal, so a token that goes to one goes to all, as long as K is a multiple of G, and at the start the layer is
// the FFN times a constant: K / (E G^2) where weights are the softmax over all N = E G experts as it is and all logits
// are zero, 1 / G where weights sum to one. output_scale is for its inverse. The paper multiplies all matrices by (E
// G^2 / K)^(1/3), which is exact for squared ReLU: give that as both scales. Errors: G that does not divide F. Source:
// He et al., "Upcycling large language models into mixture of experts", 2024, arXiv 2410.07524.
inline expert_planner granular_experts(index_t expansion, index_t granularity, double output_scale = 1,
                                       double input_scale = 1) {
  std::ostringstream name;
  name.precision(17);
  name << "granular=" << expansion << ',' << granularity << ',' << output_scale << ',' << input_scale;
  return {name.str(), [=](const std::vector<expert_card>& branches, const std::vector<index_t>& hidden) {
            std::vector<mixed_expert> plan;
            for (std::size_t b = 0; b < branches.size(); ++b) {
              GRAFT_CHECK(
                  expansion >= 1 && granularity >= 1 && hidden[b] % granularity == 0,
                  "granular_experts: expected expansion >= 1 and a granularity that divides the hidden width, got ",
                  expansion, ", ", granularity, " and ", hidden[b]);
              const index_t width = hidden[b] / granularity;
              for (index_t copy = 0; copy < expansion; ++copy)
                for (index_t shard = 0; shard < granularity; ++shard) {
                  const std::string group = branches[b].name + "." + std::to_string(copy);
                  plan.push_back({.name = group + "." + std::to_string(shard),
                                  .domain = branches[b].domain,
                                  .pieces = {{{b}, shard * width, (shard + 1) * width}},
                                  .row_key = group,
                                  .input_scale = input_scale,
                                  .output_scale = output_scale});
                }
            }
            return plan;
          }};
}

// A planner as a command line says it: whole, blend, split=C, rescaled_split=C, counts=N,N,... (one for each branch),
// granular=E,G or granular=E,G,OUTPUT_SCALE[,INPUT_SCALE]. Errors: any other text.
inline expert_planner parse_expert_planner(const std::string& text) {
  const auto equals = text.find('=');
  const std::string name = text.substr(0, equals);
  std::vector<double> numbers;
  std::istringstream rest(equals == std::string::npos ? "" : text.substr(equals + 1));
  for (std::string item; std::getline(rest, item, ',');) {
    char* end = nullptr;
    numbers.push_back(std::strtod(item.c_str(), &end));
    GRAFT_CHECK(!item.empty() && *end == '\0', "expected numbers with commas between behind ", name, "=, got ", text);
  }
  const auto whole = [&](std::size_t i) {
    GRAFT_CHECK(numbers[i] >= 1 && numbers[i] <= 65536 && numbers[i] == std::floor(numbers[i]),
                "expected a whole number of at least 1 for ", name, ", got ", numbers[i]);
    return static_cast<index_t>(numbers[i]);
  };
  if (name == "whole" && equals == std::string::npos) return whole_experts();
  if (name == "blend" && equals == std::string::npos) return blended_experts();
  if ((name == "split" || name == "rescaled_split") && numbers.size() == 1)
    return split_experts(whole(0), name == "rescaled_split");
  if (name == "counts" && !numbers.empty()) {
    std::vector<index_t> counts;
    for (std::size_t i = 0; i < numbers.size(); ++i) counts.push_back(whole(i));
    return counted_experts(std::move(counts));
  }
  if (name == "granular" && numbers.size() >= 2 && numbers.size() <= 4)
    return granular_experts(whole(0), whole(1), numbers.size() > 2 ? numbers[2] : 1.0,
                            numbers.size() > 3 ? numbers[3] : 1.0);
  detail::raise("expected whole, blend, split=C, rescaled_split=C, counts=N,N,... or granular=E,G, got ", text);
}

}  // namespace graft
