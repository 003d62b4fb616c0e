// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The laws of attention that CUDA runs, on the CPU: one definition for both.

#include <graft/backend/cpu/cpu.hpp>

#include "cuda/attention_laws.hpp"

namespace graft::test {

TEST_CASE("attention: the laws that every backend keeps", "[ops][attention][slow]") {
  context<cpu> ctx({.threads = 2});
  SECTION("fp64") { check_attention<double>(ctx); }
  SECTION("fp32") { check_attention<float>(ctx); }
  SECTION("bf16") { check_attention<bfloat16>(ctx); }
}

TEST_CASE("attention: a later token never changes an earlier output, whatever the width of a head",
          "[ops][attention]") {
  context<cpu> ctx({.threads = 2});
  check_attention_looks_back<float>(ctx, {2, 140, 4, 2, 20});
}

}  // namespace graft::test
