// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The layouts on the CPU in fp32, and the way to the mixtures there.

#include <graft/backend/cpu/cpu.hpp>

#include "common/all_mixtures.hpp"

namespace examples {

using host = graft::compute<graft::fp32, graft::cpu>;

extern template std::optional<graft::any_mixture<host>> make_routed<host, router_part::first>(const mixture_names&,
                                                                                              std::string&);
template graft::any_mixture<host> make_mixture(const mixture_names&);

}  // namespace examples
