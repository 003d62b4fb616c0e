// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The mixtures on the CPU in fp32.

#include <graft/backend/cpu/cpu.hpp>

#include "common/all_mixtures.hpp"

namespace examples {

template graft::any_mixture<graft::compute<graft::fp32, graft::cpu>> make_mixture(const mixture_names&);

}  // namespace examples
