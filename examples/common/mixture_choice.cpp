// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "common/mixture_choice.hpp"

#include <algorithm>
#include <cstdlib>

#include <graft/io/json.hpp>
#include <graft/mix/expert_plan.hpp>
#include <graft/policies/router/hash_router.hpp>

namespace examples {

std::vector<graft::expert_card> planned_experts(const std::string& text,
                                                const std::vector<graft::expert_card>& branches,
                                                graft::index_t hidden) {
  std::vector<graft::expert_card> experts;
  for (const graft::mixed_expert& expert :
       graft::parse_expert_planner(text)(branches, std::vector<graft::index_t>(branches.size(), hidden)))
    experts.push_back({expert.name, expert.domain});
  return experts;
}

std::pair<std::string, double> parse_policy_option(const std::string& text) {
  const auto equals = text.find('=');
  char* end = nullptr;
  const double value = equals == std::string::npos ? 0 : std::strtod(text.c_str() + equals + 1, &end);
  GRAFT_CHECK(equals != std::string::npos && equals > 0 && end != text.c_str() + equals + 1 && *end == '\0',
              "--policy-option: expected KIND.NAME=VALUE with a number as value, got ", text);
  return {text.substr(0, equals), value};
}

mixture_names names_of(const graft::model_card* card, const mixture_choice& choice, graft::index_t experts,
                       graft::index_t experts_per_token) {
  mixture_names names;
  names.experts = experts;
  names.experts_per_token = experts_per_token;
  const auto take = [&](const std::string& prefix, const graft::policy_card& policy) {
    for (const auto& [key, value] : policy.options.items())
      if (value.is_number() && key != "experts_per_token")
        names.options.emplace_back(prefix + key, value.get<double>());
  };
  if (card != nullptr && card->router) {
    names.router = card->router->name;
    if (choice.router.empty() || choice.router == names.router) take("router.", *card->router);
  }
  if (card != nullptr && card->layout) {
    names.layout = card->layout->name;
    if (choice.layout.empty() || choice.layout == names.layout) take("layout.", *card->layout);
  }
  if (card != nullptr && !card->balancers.empty()) {
    names.balancers.clear();
    for (const graft::policy_card& balancer : card->balancers) {
      names.balancers.push_back(balancer.name);
      if (choice.balancers.empty() ||
          std::find(choice.balancers.begin(), choice.balancers.end(), balancer.name) != choice.balancers.end())
        take("balancer." + balancer.name + ".", balancer);
    }
  }
  if (card != nullptr) names.attention = card->attention;
  if (!choice.router.empty()) names.router = choice.router;
  if (!choice.layout.empty()) names.layout = choice.layout;
  if (card == nullptr && names.router == graft::hash_router<1>::name) names.balancers = {"none"};
  if (!choice.balancers.empty()) names.balancers = choice.balancers;
  const auto chosen = [&](const std::string& balancer) {
    return std::find(names.balancers.begin(), names.balancers.end(), balancer) != names.balancers.end();
  };
  GRAFT_CHECK(names.balancers.size() == 1 || !chosen("none"), "--balancer: expected none alone or balancers, got ",
              graft::detail::joined(names.balancers));
  for (const std::string& text : choice.options) {
    names.options.push_back(parse_policy_option(text));
    const std::string& key = names.options.back().first;
    if (!key.starts_with("balancer.")) continue;
    const std::string balancer = key.substr(9, key.find('.', 9) - 9);
    GRAFT_CHECK(chosen(balancer), "--policy-option: expected an option of the balancers ",
                graft::detail::joined(names.balancers), ", got ", key);
  }
  return names;
}

void write_names(const mixture_names& names, const std::vector<std::pair<std::string, double>>& options,
                 graft::model_card& card) {
  const auto policy = [&](const std::string& prefix, const std::string& name) {
    graft::policy_card result{name, nlohmann::json::object()};
    for (const auto& [key, value] : options)
      if (key.rfind(prefix, 0) == 0) result.options[key.substr(prefix.size())] = value;
    return result;
  };
  card.kind = "moe";
  card.attention = names.attention;
  card.router = policy("router.", names.router);
  card.router->options["experts_per_token"] = names.experts_per_token;
  card.layout = policy("layout.", names.layout);
  card.balancers.clear();
  for (const std::string& name : names.balancers) card.balancers.push_back(policy("balancer." + name + ".", name));
}

}  // namespace examples
