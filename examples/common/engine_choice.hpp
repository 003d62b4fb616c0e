// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The engines that were compiled, one translation unit each.

#include <memory>

#include "common/engine.hpp"

namespace examples {

std::unique_ptr<engine> make_cpu_bf16_engine(const graft::context_options& options);
std::unique_ptr<engine> make_cpu_fp32_engine(const graft::context_options& options);
std::unique_ptr<engine> make_cuda_bf16_engine(const graft::context_options& options);
std::unique_ptr<engine> make_cuda_fp32_engine(const graft::context_options& options);
int cuda_device_count();

}  // namespace examples
