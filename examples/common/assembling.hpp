// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Assemblies from branches: the card of a new one, and forests, which need no training, as folders.

#include <filesystem>
#include <string>
#include <vector>

#include <graft/io/assembly.hpp>

#include "common/assembly_policies.hpp"
#include "common/origin.hpp"

namespace examples {

// A new assembly of some branches; its origin says what they have seen together. hub: the name of the one that comes
// first, empty: the first. Errors: no branch of that name.
graft::assembly_card assembly_of(const std::string& kind, const std::string& method, const graft::policy_card& policy,
                                 std::vector<graft::branch_directory> branches, const std::string& hub = {});

// Writes an assembly that is not trained, unless the same one is there. Errors: out holds another model.
void assemble_once(const graft::assembly_card& card, const std::filesystem::path& out,
                   const graft::parameter_layout& layout = {}, const std::vector<float>& values = {});

// Stitches that run `experts` of their experts for a sequence, those that a router chooses: the stitches of one
// assembly and the router of another over the same members, both trained. Written unless the same is there. Errors:
// members that differ.
void route_stitches_once(const std::filesystem::path& stitched, const std::filesystem::path& routing,
                         graft::index_t experts, const std::filesystem::path& out);

// What an assembly has in all, and what a token uses: of a forest and of stitched models every member, since each has
// to read the text; of expert routing the largest members that read a sequence, and the router.
struct assembly_counts {
  graft::index_t total = 0, active = 0;
};
assembly_counts counts_of(const graft::assembly_info& info);

}  // namespace examples
