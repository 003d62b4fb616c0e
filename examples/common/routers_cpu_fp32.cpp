// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The first part of the routers on the CPU in fp32.

#include <graft/backend/cpu/cpu.hpp>

#include "common/all_mixtures.hpp"

namespace examples {

template std::optional<graft::any_mixture<graft::compute<graft::fp32, graft::cpu>>>
make_routed<graft::compute<graft::fp32, graft::cpu>, router_part::first>(const mixture_names&, std::string&);

}  // namespace examples
