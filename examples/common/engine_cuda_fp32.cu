// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The engine on CUDA in fp32.

#include <graft/backend/cuda/cuda.cuh>

#include "common/all_mixtures.hpp"
#include "common/engine_choice.hpp"
#include "common/engine_templates.hpp"
#include "common/ranks_cuda.cuh"

namespace examples {

using computing = graft::compute<graft::fp32, graft::cuda>;
#if defined(GRAFT_USUAL_CUDA_POLICIES)
template graft::any_mixture<computing> make_mixture(const mixture_names&);  // else in mixtures_cuda_fp32.cu
#endif

std::unique_ptr<engine> make_cuda_fp32_engine(const graft::context_options& options) {
  return std::make_unique<backend_engine<computing>>(options);
}

}  // namespace examples
