// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Every op on CUDA against the CPU in fp64.

#include <graft/backend/cpu/cpu.hpp>
#include <graft/backend/cuda/cuda.cuh>

#include "op_laws.hpp"

namespace graft::test {

TEST_CASE("cuda ops: fp32") {
  context<cuda> device;
  context<cpu> host;
  check_ops<float>(device, host);
}
TEST_CASE("cuda ops: bf16") {
  context<cuda> device;
  context<cpu> host;
  check_ops<bfloat16>(device, host);
}

}  // namespace graft::test
