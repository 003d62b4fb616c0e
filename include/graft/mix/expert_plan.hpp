// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Expert plans: which experts a mix has, what they are called, and from which hidden units of which branches each is
// made. The planners of BTX, those of upcycling (upcycle.hpp), and planners by text.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <graft/mix/mixed_expert.hpp>
#include <graft/mix/upcycle.hpp>

namespace graft {

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
// Errors: a count below 1, not one for each branch.
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

// A planner as a command line says it. Experts: whole, blend, split=C, rescaled_split=C, counts=N,N,... (one for each
// branch), clones=E or clones=E,OUTPUT_SCALE, granular=E,G or granular=E,G,OUTPUT_SCALE[,INPUT_SCALE],
// scaled_granular=E,G,K. Behind that, once at most, what is done to them: +drop or +drop=SHARE, which comes first
// wherever it stands, and +noise or +noise=SHARE[,STDDEV] or +added_noise or +added_noise=SHARE[,STDDEV]. Errors: any
// other text.
inline expert_planner parse_expert_planner(const std::string& text) {
  const auto base = [&](const std::string& name, const std::vector<double>& numbers) -> expert_planner {
    const auto whole = [&](std::size_t i) {
      GRAFT_CHECK(numbers[i] >= 1 && numbers[i] <= 65536 && numbers[i] == std::floor(numbers[i]),
                  "expected a whole number of at least 1 for ", name, ", got ", numbers[i]);
      return static_cast<index_t>(numbers[i]);
    };
    const auto number = [&](std::size_t i) { return i < numbers.size() ? numbers[i] : 1.0; };
    if (name == "whole" && numbers.empty()) return whole_experts();
    if (name == "blend" && numbers.empty()) return blended_experts();
    if ((name == "split" || name == "rescaled_split") && numbers.size() == 1)
      return split_experts(whole(0), name == "rescaled_split");
    if (name == "counts" && !numbers.empty()) {
      std::vector<index_t> counts;
      for (std::size_t i = 0; i < numbers.size(); ++i) counts.push_back(whole(i));
      return counted_experts(std::move(counts));
    }
    if (name == "clones" && (numbers.size() == 1 || numbers.size() == 2)) return cloned_experts(whole(0), number(1));
    if (name == "granular" && numbers.size() >= 2 && numbers.size() <= 4)
      return granular_experts(whole(0), whole(1), number(2), number(3));
    if (name == "scaled_granular" && numbers.size() == 3) return scaled_granular_experts(whole(0), whole(1), whole(2));
    detail::raise(
        "expected whole, blend, split=C, rescaled_split=C, counts=N,N,..., clones=E, granular=E,G or "
        "scaled_granular=E,G,K, got ",
        text);
  };
  bool noisy = false, dropped = false;
  const auto change = [&](expert_planner planner, const std::string& name, const std::vector<double>& numbers) {
    bool& done = name == "drop" ? dropped : noisy;
    GRAFT_CHECK(!std::exchange(done, true), "expected one ", name == "drop" ? "drop" : "kind of noise",
                " behind the experts, got ", text);
    if ((name == "noise" || name == "added_noise") && numbers.size() <= 2) {
      expert_noise noise{.added = name == "added_noise"};
      if (!numbers.empty()) noise.share = numbers[0];
      if (numbers.size() > 1) noise.stddev = numbers[1];
      return with_noise(std::move(planner), noise);
    }
    if (name == "drop" && numbers.empty()) return with_redrawn_units(std::move(planner));
    if (name == "drop" && numbers.size() == 1) return with_redrawn_units(std::move(planner), numbers[0]);
    detail::raise("expected noise=SHARE,STDDEV, added_noise=SHARE,STDDEV or drop=SHARE behind a plus, got ", text);
  };
  expert_planner planner;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('+', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    std::vector<double> numbers;
    if (equals != std::string::npos) {
      std::istringstream rest(word.substr(equals + 1));
      for (std::string item; std::getline(rest, item, ',');) {
        char* last = nullptr;
        numbers.push_back(std::strtod(item.c_str(), &last));
        GRAFT_CHECK(!item.empty() && *last == '\0', "expected numbers with commas between behind ", name, "=, got ",
                    text);
      }
      GRAFT_CHECK(!numbers.empty(), "expected numbers behind ", name, "=, got ", text);
    }
    planner = begin == 0 ? base(name, numbers) : change(std::move(planner), name, numbers);
    begin = end + 1;
  }
  return planner;
}

}  // namespace graft
