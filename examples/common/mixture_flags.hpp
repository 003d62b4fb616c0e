// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The options of mixtures on a command line.

#include <CLI/CLI.hpp>

#include "common/mixture_choice.hpp"

namespace examples {

// Which experts are made of the branches: for graft::parse_expert_planner.
inline constexpr const char* experts_help =
    "of a mixture: whole (one for each branch), split=C (each branch cut into C), rescaled_split=C, blend, "
    "counts=N,N,... (copies of each branch), clones=E, granular=E,G or scaled_granular=E,G,K; behind it +drop=SHARE, "
    "+noise=SHARE,STDDEV, +added_noise=SHARE,STDDEV";

inline void add_mixture_flags(CLI::App& app, mixture_choice& choice) {
  app.add_option("--router", choice.router, "of the mixture, see branch_train_mix --list [top_k]");
  app.add_option("--balancer", choice.balancers, "NAME,NAME,... of the mixture, or none [switch_loss,z_loss]")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option("--layout", choice.layout, "of the experts [routed]");
  app.add_option("--policy-option", choice.options,
                 "KIND.NAME=VALUE, repeatable: router.gate.jitter=0.01, balancer.switch_loss.coefficient=0.1")
      ->take_all()
      ->allow_extra_args(false);
}

}  // namespace examples
