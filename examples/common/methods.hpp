// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The ways to make one model of a seed and its branches that branch_train_mix compares, by name.

#include <algorithm>
#include <string>
#include <vector>

namespace examples {

struct method_line {
  const char* name;
  const char* what;
};

// In the order of the table. What is trained sees the same number of tokens.
inline constexpr method_line family_methods[] = {
    {"dense", "one dense model of the mix's tokens, one of all tokens"},
    {"soup", "the mean of all models"},
    {"btm", "all models, their probabilities mixed by a posterior; the same with the best one and the best two"},
    {"expert_routing", "one model for a whole sequence, chosen by its embedding"},
    {"upcycling", "a mixture of clones of the seed"},
    {"btx_sample", "a mixture of the branches, one expert by Gumbel noise; of 4 experts"},
    {"btx", "a mixture of the branches, top-k"},
    {"btx_soft", "a mixture of the branches, all experts; of 4"},
    {"bam", "a mixture of the branches' attentions too; of 4 models all experts, else top-2"},
    {"bam_adapters", "the same with adapters, of which they and the routers alone are trained"},
    {"bts", "the models frozen side by side, stitch layers between them trained"}};

inline std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const method_line& each : family_methods) names.emplace_back(each.name);
  return names;
}

// "all" stands for all of them.
inline std::vector<std::string> chosen_methods(const std::vector<std::string>& said) {
  return std::find(said.begin(), said.end(), "all") == said.end() ? said : method_names();
}

}  // namespace examples
