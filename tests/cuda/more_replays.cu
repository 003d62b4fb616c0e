// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Replays of recorded training steps of other models, without a narrow copy.

#include <graft/backend/cpu/cpu.hpp>
#include <graft/backend/cuda/cuda.cuh>

#include "replay_laws.hpp"

namespace graft::test {

TEST_CASE("cuda replay: merged experts, stitches and a router of members", "[model]") {
  context<cuda> ctx;
  check_other_replays<fp32>(ctx, true);
}

}  // namespace graft::test
