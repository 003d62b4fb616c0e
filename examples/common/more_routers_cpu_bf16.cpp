// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The second part of the routers on the CPU in bf16.

#include <graft/backend/cpu/cpu.hpp>

#include "common/all_mixtures.hpp"

namespace examples {

template std::optional<graft::any_mixture<graft::compute<graft::bf16, graft::cpu>>>
make_routed<graft::compute<graft::bf16, graft::cpu>, router_part::second>(const mixture_names&, compiled_routers&);

}  // namespace examples
