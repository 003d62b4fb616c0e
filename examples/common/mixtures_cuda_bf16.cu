// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The mixtures on CUDA in bf16, but for the second part of the routers (more_routers_cuda_bf16.cu).

#include <graft/backend/cuda/cuda.cuh>

#include "common/all_mixtures.hpp"

namespace examples {

using computing = graft::compute<graft::bf16, graft::cuda>;

extern template std::optional<graft::any_mixture<computing>> make_routed<computing, router_part::second>(
    const mixture_names&, compiled_routers&);
template graft::any_mixture<computing> make_mixture(const mixture_names&);

}  // namespace examples
