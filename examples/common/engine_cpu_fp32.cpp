// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The engine on the CPU in fp32.

#include <graft/backend/cpu/cpu.hpp>

#include "common/engine_choice.hpp"
#include "common/engine_templates.hpp"

namespace examples {

using computing = graft::compute<graft::fp32, graft::cpu>;

std::unique_ptr<engine> make_cpu_fp32_engine(const graft::context_options& options) {
  return std::make_unique<backend_engine<computing>>(options);
}

}  // namespace examples
