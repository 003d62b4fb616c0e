// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The mixtures on CUDA in fp32.

#include <graft/backend/cuda/cuda.cuh>

#include "common/all_mixtures.hpp"

namespace examples {

template graft::any_mixture<graft::compute<graft::fp32, graft::cuda>> make_mixture(const mixture_names&);

}  // namespace examples
