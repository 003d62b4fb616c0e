// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The second part of the routers on CUDA in bf16.

#include <graft/backend/cuda/cuda.cuh>

#include "common/all_mixtures.hpp"

namespace examples {

template std::optional<graft::any_mixture<graft::compute<graft::bf16, graft::cuda>>>
make_routed<graft::compute<graft::bf16, graft::cuda>, router_part::second>(const mixture_names&, compiled_routers&);

}  // namespace examples
