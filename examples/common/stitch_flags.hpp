// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The options of stitches on a command line, and what an ablation changes of them.

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "common/assembly_policies.hpp"
#include "common/validators.hpp"

namespace examples {

struct stitch_choice {
  std::string topology = graft::hub_and_spokes::name;
  index_t stitches = 0;
  std::string hub;  // name of a member; empty: the first
  double dropout = 0.1;

  // Whether a program was told anything but the defaults.
  bool given() const { return *this != stitch_choice(); }
  bool operator==(const stitch_choice&) const = default;
};

inline void add_stitch_flags(CLI::App& app, stitch_choice& choice) {
  app.add_option("--topology", choice.topology,
                 "of stitched models: " + graft::detail::joined(graft::any_topology::names()))
      ->capture_default_str()
      ->check(CLI::IsMember(graft::any_topology::names()));
  app.add_option("--stitches", choice.stitches, "stitch layers; default: the topology's own number, 4 at most")
      ->check(at_least(1));
  app.add_option("--hub", choice.hub, "the model whose output is read; default: the seed, or the first");
  app.add_option("--dropout", choice.dropout, "of gate logits in training")->capture_default_str();
}

// Errors: a topology that cannot be had for so many blocks and members.
inline stitch_policy stitch_policy_of(const stitch_choice& choice, index_t blocks, std::size_t members) {
  stitch_policy policy;
  policy.topology = graft::any_topology::named(choice.topology);
  const graft::stitch_plan plan = policy.topology.plan(blocks, choice.stitches, static_cast<index_t>(members));
  graft::check_stitch_plan(plan, policy.topology.name);
  policy.stitches = static_cast<index_t>(plan.steps.size());
  policy.dropout = choice.dropout;
  return policy;
}

// One thing changed in each: the number of stitches (1, 2, 4, one for each block), all of them into the hub, and each
// other member as the hub.
inline std::vector<std::pair<std::string, stitch_choice>> stitch_ablation(const stitch_choice& usual, index_t blocks,
                                                                          const std::vector<std::string>& members) {
  std::vector<std::pair<std::string, stitch_choice>> variants;
  const index_t own = usual.stitches > 0 ? usual.stitches : std::min<index_t>(4, blocks);
  for (const index_t stitches : std::set<index_t>{1, 2, 4, blocks}) {
    if (stitches > blocks || stitches == own) continue;
    stitch_choice changed = usual;
    changed.stitches = stitches;
    variants.emplace_back("bts-stitches-" + std::to_string(stitches), changed);
  }
  if (usual.topology != graft::into_hub::name && own > 1) {
    stitch_choice changed = usual;
    changed.topology = graft::into_hub::name;
    variants.emplace_back("bts-into-hub", changed);
  }
  const std::string hub = usual.hub.empty() ? members.front() : usual.hub;
  for (const std::string& member : members) {
    if (member == hub) continue;
    stitch_choice changed = usual;
    changed.hub = member;
    variants.emplace_back("bts-hub-" + member, changed);
  }
  return variants;
}

}  // namespace examples
