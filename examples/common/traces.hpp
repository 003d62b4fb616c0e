// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Texts to look at models with, and the routing of such a text while a model is trained.

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include <graft/analysis/gate_trace.hpp>
#include <graft/analysis/routing_log.hpp>
#include <graft/io/token_file.hpp>

#include "common/engine.hpp"

namespace examples {

// Excerpts of some texts one after another, `tokens` of each: lines from its middle, since the first document of a text
// may begin with a licence.
graft::marked_text excerpts(const std::vector<held_out_domain>& texts, index_t tokens);

// Where the snapshots of a training are.
fs::path routing_log_of(const fs::path& model);

// What a training calls after every step: observe, and a probe of the routing where the model has experts and the job
// wants it. To be called before the run starts.
template <class Model>
observe_step with_snapshots(Model& model, const training_job& job, const observe_step& observe) {
  if constexpr (requires { model.observe_routing(nullptr); }) {
    if constexpr (Model::mixture_type::present) {
      const snapshot_options& o = job.snapshots;
      if (o.texts.empty()) return observe;
      const auto probe = std::make_shared<graft::routing_probe<Model>>(
          model, excerpts(o.texts, o.tokens).ids, o.positions, std::max<index_t>(1, job.training.steps / o.count),
          job.training.steps, routing_log_of(job.out));
      return [probe, observe](const graft::step_report& report) {
        if (observe) observe(report);
        (*probe)(report);
      };
    }
  }
  return observe;
}

}  // namespace examples
