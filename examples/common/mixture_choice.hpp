// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which router, balancers and layout a mixture has, by name, with their options: as command lines say it and as
// graft.json keeps it.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <graft/io/graft_json.hpp>

namespace examples {

// What a program was told. Empty: what the model's graft.json says, else the default.
struct mixture_choice {
  std::string router, layout;
  std::vector<std::string> balancers;
  std::vector<std::string> options;  // "router.weigh.scale=2.5", "balancer.switch_loss.coefficient=0.1"

  bool given() const { return !router.empty() || !layout.empty() || !balancers.empty() || !options.empty(); }
};

// What no model of a command reads is refused. Errors: a choice, where `why` says what there is instead of a mixture.
inline void refuse_mixture_choice(const mixture_choice& choice, const std::string& why) {
  GRAFT_CHECK(!choice.given(), "--router, --balancer, --layout and --policy-option: expected a mixture, got ", why);
}

// What a plan of experts (graft::parse_expert_planner) makes of branches of one hidden width: names and domains.
std::vector<graft::expert_card> planned_experts(const std::string& text,
                                                const std::vector<graft::expert_card>& branches, graft::index_t hidden);

std::pair<std::string, double> parse_policy_option(const std::string& text);

// A mixture by the names of its policies and the numbers that differ from the policies' own.
struct mixture_names {
  std::string router = "top_k", layout = "routed";
  std::vector<std::string> balancers{"switch_loss", "z_loss"};
  graft::index_t experts = 0, experts_per_token = 0;
  std::vector<std::pair<std::string, double>> options;  // "balancer.z_loss.coefficient", 0.001
  std::optional<graft::policy_card> attention;          // attention experts; none: one attention
};

// What a model's card says, with what a program was told on top of it. A router that learns nothing has no balancer
// unless one is asked for. Errors: an option of a balancer that is not chosen, none beside another balancer.
mixture_names names_of(const graft::model_card* card, const mixture_choice& choice, graft::index_t experts,
                       graft::index_t experts_per_token);

// The same for a card: names, and every number of the mixture as it is (mixture.options()).
void write_names(const mixture_names& names, const std::vector<std::pair<std::string, double>>& options,
                 graft::model_card& card);

}  // namespace examples
