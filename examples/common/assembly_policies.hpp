// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The policies of assemblies by name, as command lines say them and as graft.json keeps them.

#include <string>
#include <vector>

#include <graft/io/assembly.hpp>
#include <graft/io/cluster_posterior.hpp>
#include <graft/models/forest_posterior.hpp>
#include <graft/models/routed_forest.hpp>
#include <graft/policies/stitch_topology/any_topology.hpp>

namespace examples {

using graft::index_t;

// A posterior of a forest that is chosen at run time, so that one type of forest is compiled.
struct any_posterior {
  enum class form { prefix, last_token, fixed };
  form which = form::prefix;
  index_t kept = 0;
  double temperature = 1;

  GRAFT_HOST_DEVICE double log_weight(index_t position, double log_prior, double prefix, double last) const {
    if (which == form::prefix)
      return graft::prefix_posterior{kept, temperature}.log_weight(position, log_prior, prefix, last);
    if (which == form::last_token)
      return graft::last_token_posterior{kept, temperature}.log_weight(position, log_prior, prefix, last);
    return log_prior;
  }
};

inline constexpr const char* posterior_names[] = {graft::prefix_posterior::name, graft::last_token_posterior::name,
                                                  graft::fixed_weights::name};

// A forest: which posterior, and the prior of its members, uniform where it is empty.
struct forest_policy {
  any_posterior posterior{};
  std::vector<double> prior;
};

struct stitch_policy {
  graft::any_topology topology{};
  index_t stitches = 0;  // 0: the topology's own number
  double dropout = 0.1;  // of gate logits, in training
  bool carry_raw_expert_state = false;
  index_t experts = 0;      // that run for a sequence beside the hub, chosen by a router; 0: all, without a router
  index_t choose_from = 0;  // tokens at the start that they are chosen from; 0: all
};

// A forest of the experts of clusters of documents (c-BTM): weighed by how near a text is to each cluster.
inline constexpr const char* clusters_name = "clusters";
struct cluster_policy {
  std::string file;  // the fitted clusters, relative to the assembly's folder
  graft::cluster_posterior_options posterior{};
  index_t chunk = 16;  // tokens that share their weights in evaluation
};

namespace detail {

// The number of an option. Errors: no number.
double number_of(const std::string& place, const std::string& key, const nlohmann::json& value);
index_t count_of(const std::string& place, const std::string& key, const nlohmann::json& value);
[[noreturn]] void unknown_option(const std::string& place, const graft::policy_card& card, const std::string& key,
                                 const std::string& known);

}  // namespace detail

// place: the file that the card is from. Errors: an unknown name or option, a prior that is not one number a member.
forest_policy forest_policy_of(const graft::policy_card& card, std::size_t members, const std::string& place);
graft::policy_card card_of(const forest_policy& policy);

cluster_policy cluster_policy_of(const graft::policy_card& card, const std::string& place);
graft::policy_card card_of(const cluster_policy& policy);

inline constexpr const char* expert_router_name = "mean_embedding";

graft::expert_routing_options routing_policy_of(const graft::policy_card& card, const std::string& place);
// For windows of so many positions: the choice is made from the first 32 tokens, so that what is evaluated is hardly
// what the choice was made from.
graft::expert_routing_options routing_options(index_t positions);
graft::policy_card card_of(const graft::expert_routing_options& options);

stitch_policy stitch_policy_of(const graft::policy_card& card, const std::string& place);
graft::policy_card card_of(const stitch_policy& policy);

}  // namespace examples
