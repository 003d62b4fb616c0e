// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Training of the router of a routed_forest.

#include <functional>

#include <graft/models/routed_forest.hpp>
#include <graft/train/trainer.hpp>

namespace graft {

// AdamW at a constant rate. Source: the baseline of Zhang et al., "BTS", 2025, arXiv 2502.00075.
inline training_options router_training() {
  training_options options;
  options.learning_rate = 5e-4;
  options.warmup_steps = 0;
  options.decay = decay_form::constant;
  return options;
}

struct router_fit {
  double first_loss = 0, last_loss = 0;  // mean cross entropy of the labels in the first and the last step
  double agreement = 0;                  // in the last step: share of the tokens whose sequence went to its label
};

// Trains model.parameters() alone on the batches of source.fill(step, inputs, targets); observe(report) is called after
// every step. For a run that survives being killed give a trainer of the model to run_training.
template <class Model, class Source>
router_fit fit_router(Model& model, Source& source, const training_options& options = router_training(),
                      const std::function<void(const step_report&)>& observe = {}) {
  trainer<Model> run(model, options);
  router_fit result;
  while (!run.finished()) {
    const step_report report = run.step(source);
    if (report.step == 0) result.first_loss = report.loss;
    result.last_loss = report.loss;
    if (observe) observe(report);
  }
  if (run.next_step() > 0) result.agreement = model.agreement();
  return result;
}

}  // namespace graft
