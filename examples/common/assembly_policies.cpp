// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "common/assembly_policies.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include <graft/policies/options.hpp>

namespace examples {

namespace detail {

double number_of(const std::string& place, const std::string& key, const nlohmann::json& value) {
  GRAFT_CHECK(value.is_number(), place, ": expected the option ", key, " to be a number, got ",
              graft::detail::shown(value));
  return value.get<double>();
}

index_t count_of(const std::string& place, const std::string& key, const nlohmann::json& value) {
  const double number = number_of(place, key, value);
  GRAFT_CHECK(number >= 0 && number == std::floor(number), place, ": expected the option ", key,
              " to be a whole number of at least 0, got ", number);
  return static_cast<index_t>(number);
}

void unknown_option(const std::string& place, const graft::policy_card& card, const std::string& key,
                    const std::string& known) {
  graft::detail::raise(place, ": expected the options ", known, " of ", card.name, ", got ", key);
}

}  // namespace detail

forest_policy forest_policy_of(const graft::policy_card& card, std::size_t members, const std::string& place) {
  forest_policy policy;
  int form = 0;
  for (; form < 3 && card.name != posterior_names[form]; ++form) {}
  GRAFT_CHECK(form < 3, place, ": expected a posterior of ", graft::detail::joined(posterior_names), ", got ",
              card.name);
  policy.posterior.which = static_cast<any_posterior::form>(form);
  const std::string prior = "prior_";
  std::size_t weights = 0;
  for (const auto& [key, value] : card.options.items()) {
    if (key == "kept") {
      policy.posterior.kept = detail::count_of(place, key, value);
    } else if (key == "temperature") {
      policy.posterior.temperature = detail::number_of(place, key, value);
    } else if (key.starts_with(prior)) {
      policy.prior.resize(members);
      std::size_t at = members;
      for (std::size_t i = 0; i < members; ++i)
        if (key == prior + std::to_string(i)) at = i;
      GRAFT_CHECK(at < members, place, ": expected a prior of ", members, " members, prior_0 to prior_", members - 1,
                  ", got ", key);
      policy.prior[at] = detail::number_of(place, key, value);
      ++weights;
    } else {
      detail::unknown_option(place, card, key, "kept, temperature, prior_0, prior_1, ...");
    }
  }
  GRAFT_CHECK(weights == 0 || weights == members, place, ": expected a prior of ", members, " members, got ", weights,
              " numbers");
  GRAFT_CHECK(policy.posterior.temperature > 0, place, ": expected a temperature above 0, got ",
              policy.posterior.temperature);
  GRAFT_CHECK(policy.posterior.kept <= static_cast<index_t>(members), place, ": expected kept of at most ", members,
              ", the number of members, got ", policy.posterior.kept);
  return policy;
}

graft::policy_card card_of(const forest_policy& policy) {
  graft::policy_card card{posterior_names[static_cast<int>(policy.posterior.which)],
                          {{"kept", policy.posterior.kept}, {"temperature", policy.posterior.temperature}}};
  for (std::size_t i = 0; i < policy.prior.size(); ++i) card.options["prior_" + std::to_string(i)] = policy.prior[i];
  return card;
}

cluster_policy cluster_policy_of(const graft::policy_card& card, const std::string& place) {
  cluster_policy policy;
  for (const auto& [key, value] : card.options.items()) {
    if (key == "file") {
      GRAFT_CHECK(value.is_string(), place, ": expected the option file to be a text, got ",
                  graft::detail::shown(value));
      policy.file = value.get<std::string>();
    } else if (key == "kept") {
      policy.posterior.clusters = detail::count_of(place, key, value);
    } else if (key == "temperature") {
      policy.posterior.temperature = detail::number_of(place, key, value);
    } else if (key == "chunk") {
      policy.chunk = detail::count_of(place, key, value);
    } else {
      detail::unknown_option(place, card, key, "file, kept, temperature, chunk");
    }
  }
  return policy;
}

graft::policy_card card_of(const cluster_policy& policy) {
  return {clusters_name,
          {{"file", policy.file},
           {"kept", policy.posterior.clusters},
           {"temperature", policy.posterior.temperature},
           {"chunk", policy.chunk}}};
}

graft::expert_routing_options routing_policy_of(const graft::policy_card& card, const std::string& place) {
  GRAFT_CHECK(card.name == expert_router_name, place, ": expected the router ", expert_router_name, ", got ",
              card.name);
  graft::expert_routing_options options;
  for (const auto& [key, value] : card.options.items()) {
    if (key == "kept") {
      options.kept = detail::count_of(place, key, value);
    } else if (key == "choose_from") {
      options.choose_from = detail::count_of(place, key, value);
    } else if (key == "shortest") {
      options.shortest = detail::count_of(place, key, value);
    } else if (key == "longest") {
      options.longest = detail::count_of(place, key, value);
    } else if (key == "labels") {
      GRAFT_CHECK(value == "all" || value == "continuation", place,
                  ": expected the option labels to be \"all\" or \"continuation\", got ", graft::detail::shown(value));
      options.labels = value == "all" ? graft::label_tokens::all : graft::label_tokens::continuation;
    } else {
      detail::unknown_option(place, card, key, "kept, choose_from, shortest, longest, labels");
    }
  }
  return options;
}

graft::expert_routing_options routing_options(index_t positions) {
  graft::expert_routing_options options;
  options.shortest = std::min(options.shortest, positions);
  options.longest = std::min(options.longest, positions);
  options.choose_from = options.shortest;
  return options;
}

graft::policy_card card_of(const graft::expert_routing_options& options) {
  return {expert_router_name,
          {{"kept", options.kept},
           {"choose_from", options.choose_from},
           {"shortest", options.shortest},
           {"longest", options.longest},
           {"labels", options.labels == graft::label_tokens::all ? "all" : "continuation"}}};
}

stitch_policy stitch_policy_of(const graft::policy_card& card, const std::string& place) {
  stitch_policy policy;
  try {
    policy.topology = graft::any_topology::named(card.name);
    for (const auto& [key, value] : card.options.items()) {
      if (key == "stitches")
        policy.stitches = detail::count_of(place, key, value);
      else if (key == "dropout")
        policy.dropout = detail::number_of(place, key, value);
      else if (key == "carry_raw_expert_state")
        policy.carry_raw_expert_state = value == true || value == 1;
      else if (key == "experts")
        policy.experts = detail::count_of(place, key, value);
      else if (key == "choose_from")
        policy.choose_from = detail::count_of(place, key, value);
      else
        policy.topology.set_option(key, detail::number_of(place, key, value));
    }
  } catch (const graft::error& problem) {
    const std::string text = problem.what();
    graft::detail::raise(text.starts_with(place) ? text : place + ": " + text);
  }
  return policy;
}

graft::policy_card card_of(const stitch_policy& policy) {
  graft::policy_card card{policy.topology.name,
                          {{"stitches", policy.stitches},
                           {"dropout", policy.dropout},
                           {"carry_raw_expert_state", policy.carry_raw_expert_state}}};
  if (policy.experts > 0) {
    card.options["experts"] = policy.experts;
    card.options["choose_from"] = policy.choose_from;
  }
  for (const auto& [name, value] : policy.topology.options()) {
    card.options[name] = value;
    if (value == std::floor(value)) card.options[name] = static_cast<index_t>(value);
  }
  return card;
}

}  // namespace examples
