// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Learning-rate schedules: linear warm-up, then constant, cosine or linear decay to a fraction of the peak.

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>

namespace graft {

enum class decay_form { constant, cosine, linear };

inline constexpr decay_form all_decay_forms[] = {decay_form::constant, decay_form::cosine, decay_form::linear};

constexpr std::string_view name_of(decay_form form) {
  constexpr std::string_view names[] = {"constant", "cosine", "linear"};
  return names[static_cast<int>(form)];
}

struct schedule_options {
  double peak = 1e-3;
  index_t warmup_steps = 0;
  index_t total_steps = 0;
  decay_form form = decay_form::cosine;
  double final_fraction = 0.1;  // of the peak, reached at total_steps
};

// The learning rate of step `step`, counted from 0.
//   warm-up  peak (step + 1) / warmup_steps
//   then, with x = (step - warmup) / (total - warmup) in [0, 1] and f = final_fraction:
//   cosine   peak (f + (1 - f) (1 + cos(pi x)) / 2),   linear   peak (1 - (1 - f) x)
inline double learning_rate(const schedule_options& options, index_t step) {
  if (step < options.warmup_steps)
    return options.peak * static_cast<double>(step + 1) / static_cast<double>(options.warmup_steps);
  const auto length = static_cast<double>(std::max<index_t>(options.total_steps - options.warmup_steps, 1));
  const double x = std::clamp(static_cast<double>(step - options.warmup_steps) / length, 0.0, 1.0);
  const double f = options.final_fraction;
  switch (options.form) {
    case decay_form::constant:
      return options.peak;
    case decay_form::cosine:
      return options.peak * (f + (1 - f) * 0.5 * (1 + std::cos(std::numbers::pi * x)));
    case decay_form::linear:
      return options.peak * (1 - (1 - f) * x);
  }
  return options.peak;
}

}  // namespace graft
