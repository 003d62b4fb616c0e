// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "common/assembling.hpp"

#include <algorithm>
#include <utility>

#include <graft/models/counts.hpp>

namespace examples {

graft::assembly_card assembly_of(const std::string& kind, const std::string& method, const graft::policy_card& policy,
                                 std::vector<graft::branch_directory> branches, const std::string& hub) {
  const auto at = hub.empty() ? branches.begin()
                              : std::find_if(branches.begin(), branches.end(),
                                             [&](const graft::branch_directory& each) { return each.name == hub; });
  std::string names;
  for (const graft::branch_directory& each : branches) names += (names.empty() ? "" : ", ") + each.name;
  GRAFT_CHECK(at != branches.end(), "--hub: expected one of ", names, ", got ", hub);
  std::rotate(branches.begin(), at, at + 1);
  graft::assembly_card card;
  card.kind = kind;
  card.policy = policy;
  for (const graft::branch_directory& each : branches) card.members.push_back({each.name, each.domain, each.folder});
  card.tokenizer = graft::load_model_info(branches.front().folder).tokenizer;
  const parents_origin parents = origin_of_parents(branches);
  card.provenance = {{"method", method},
                     {"parents", parents.names},
                     {"train_tokens", parents.train_tokens},
                     {"critical_path_tokens", parents.critical_path_tokens}};
  card.provenance["signature"] = fingerprint(kind + ' ' + policy.name + policy.options.dump() + parents.text);
  return card;
}

void assemble_once(const graft::assembly_card& card, const std::filesystem::path& out,
                   const graft::parameter_layout& layout, const std::vector<float>& values) {
  if (holds_model(out)) {
    const std::string wanted = card.provenance["signature"],
                      found = origin_value(origin_of(out), out, "signature", std::string("unknown"));
    GRAFT_CHECK(found == wanted, out.string(), ": holds another model (signature ", found, ", that of this one is ",
                wanted, "): remove it or choose another place");
    return;
  }
  graft::save_assembly(out, card, layout, values.data());
}

void route_stitches_once(const std::filesystem::path& stitched, const std::filesystem::path& routing,
                         graft::index_t experts, const std::filesystem::path& out) {
  const graft::assembly_info from = graft::load_assembly_info(stitched), router = graft::load_assembly_info(routing);
  const auto same = [](const graft::assembly_member& a, const graft::assembly_member& b) {
    return a.name == b.name && std::filesystem::equivalent(a.folder, b.folder);
  };
  GRAFT_CHECK(from.card.members.size() == router.card.members.size() &&
                  std::equal(from.card.members.begin(), from.card.members.end(), router.card.members.begin(), same),
              out.string(), ": expected stitches and a router of the same members in one order, got those of ",
              stitched.string(), " and ", routing.string());
  stitch_policy policy = stitch_policy_of(from.card.policy, (stitched / "graft.json").string());
  policy.experts = experts;
  policy.choose_from = routing_policy_of(router.card.policy, (routing / "graft.json").string()).choose_from;
  graft::assembly_card card = from.card;
  card.policy = card_of(policy);
  for (const char* key : {"last_train_tokens", "tokens_per_second", "run"}) card.provenance.erase(key);
  card.provenance["signature"] = fingerprint(card.policy.options.dump() + from.card.provenance.value("signature", "") +
                                             router.card.provenance.value("signature", ""));
  graft::parameter_layout layout;
  std::vector<float> values;
  for (const auto& folder : {stitched, routing}) {
    const graft::tensor_files files(folder);
    for (const auto& [name, located] : files.tensors()) {
      const auto& shape = located.tensor->shape;
      graft::tensor_entry entry;
      entry.name = name;
      entry.offset = layout.size;
      entry.rows = static_cast<graft::index_t>(shape.at(0));
      entry.columns = shape.size() > 1 ? static_cast<graft::index_t>(shape[1]) : 0;
      layout.size += entry.size();
      values.resize(static_cast<std::size_t>(layout.size));
      located.read(0, located.tensor->size(), values.data() + entry.offset);
      layout.tensors.push_back(std::move(entry));
    }
  }
  assemble_once(card, out, layout, values);
}

assembly_counts counts_of(const graft::assembly_info& info) {
  const graft::index_t own = graft::own_parameter_count(info.folder);
  std::vector<graft::index_t> members;
  for (const graft::model_info& member : info.members) members.push_back(graft::parameter_count(member.config.shape));
  std::sort(members.rbegin(), members.rend());
  std::size_t kept = members.size();
  const std::string place = (info.folder / "graft.json").string();
  if (info.card.kind == "expert_routing")
    kept = static_cast<std::size_t>(routing_policy_of(info.card.policy, place).kept);
  if (info.card.kind == "stitched") {
    const graft::index_t experts = stitch_policy_of(info.card.policy, place).experts;
    if (experts > 0) kept = static_cast<std::size_t>(experts) + 1;
  }
  assembly_counts counts{own, own};
  for (std::size_t i = 0; i < members.size(); ++i) {
    counts.total += members[i];
    if (i < kept) counts.active += members[i];
  }
  return counts;
}

}  // namespace examples
