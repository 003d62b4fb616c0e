// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Forests and expert routing on CUDA against the CPU in fp64. fp32 alone: in bf16 the losses of a member are off by as
// much as tells members apart.

#include <graft/backend/cpu/cpu.hpp>
#include <graft/backend/cuda/cuda.cuh>

#include "forest_laws.hpp"

namespace graft::test {

TEST_CASE("cuda forests: fp32", "[model][large]") {
  context<cuda> device;
  context<cpu> host;
  check_forests<float>(device, host);
}

}  // namespace graft::test
