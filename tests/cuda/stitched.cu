// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Stitched models on CUDA against the CPU in fp64.

#include <graft/backend/cpu/cpu.hpp>
#include <graft/backend/cuda/cuda.cuh>

#include "stitched_laws.hpp"

namespace graft::test {

TEST_CASE("cuda stitched: fp32", "[model][large]") {
  context<cuda> device;
  context<cpu> host;
  check_stitched<float>(device, host);
}
TEST_CASE("cuda stitched: bf16", "[model]") {
  context<cuda> device;
  context<cpu> host;
  check_stitched<bfloat16>(device, host);
}

}  // namespace graft::test
