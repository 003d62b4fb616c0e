// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The engine's work on assemblies: stitched models, forests and expert routing. assemblies_templates.hpp has it; it is
// compiled with the engines.

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <graft/layers/compute.hpp>

#include "common/engine.hpp"

namespace examples {

// As the functions of the same names of engine. Errors: folders that hold no assembly, and members that these programs
// are not compiled for.
template <class Compute>
struct assembly_work {
  using context_type = typename Compute::context_type;

  static nlohmann::json train(context_type& context, const training_job& job, const observe_step& observe);
  static std::vector<double> prior(context_type& context, const graft::assembly_card& card, const fs::path& tokens,
                                   index_t positions);
  static std::vector<graft::evaluation> evaluate(context_type& context, const evaluation_job& job);
  static std::string generate(context_type& context, const fs::path& folder, const std::string& prompt,
                              const graft::generation_options& options,
                              const std::function<void(const std::string&)>& emit);
  static graft::gate_trace gates(context_type& context, const fs::path& folder, const std::vector<std::int32_t>& ids);
};

}  // namespace examples
