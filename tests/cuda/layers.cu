// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Routing and the mixture layer on CUDA against the CPU in fp64.

#include <graft/backend/cpu/cpu.hpp>
#include <graft/backend/cuda/cuda.cuh>

#include "model_laws.hpp"

namespace graft::test {

TEST_CASE("cuda layers: fp32") {
  context<cuda> device;
  context<cpu> host;
  check_layers<float>(device, host);
}
TEST_CASE("cuda layers: bf16") {
  context<cuda> device;
  context<cpu> host;
  check_layers<bfloat16>(device, host);
}

}  // namespace graft::test
