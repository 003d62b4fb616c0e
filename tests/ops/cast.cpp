// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/ops/cast.hpp>

#include "reference.hpp"
#include "shuffled_context.hpp"

namespace cast_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <class To, class From, class Context>
tensor<To> converted(Context& ctx, const tensor<From>& x) {
  tensor<To> out(1, x.columns, 3);
  cast(ctx, out.vector(), x.vector());
  return out;
}

template <class To, class From>
void check_pair(index_t count) {
  context<cpu> one(context_options{1}), two(context_options{2});
  shuffled_context shuffled(1);
  auto x = tensor<From>::random(1, count, 1);
  if (count > 3) {
    x(0, 0) = narrow<From>(std::numeric_limits<double>::infinity());
    x(0, 1) = narrow<From>(-0.0);
    x(0, 2) = narrow<From>(0x1p-140);
  }
  const tensor<To> out = converted<To>(one, x);
  CHECK(same_bits(out, converted<To>(two, x)));
  CHECK(same_bits(out, converted<To>(shuffled, x)));
  int wrong = 0;
  for (index_t i = 0; i < count; ++i) {
    const To expected = To(x.at(0, i));  // from fp64, which holds every value of every type: one rounding
    if (std::memcmp(&expected, &out.values[static_cast<std::size_t>(i)], sizeof(To)) != 0) ++wrong;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("cast: every pair of types, one rounding", "[ops]") {
  const index_t count = GENERATE(0, 1, 7, 4096, 4097, 30001);
  CAPTURE(count);
  check_pair<double, double>(count);
  check_pair<double, float>(count);
  check_pair<double, bfloat16>(count);
  check_pair<float, double>(count);
  check_pair<float, float>(count);
  check_pair<float, bfloat16>(count);
  check_pair<bfloat16, double>(count);
  check_pair<bfloat16, float>(count);
  check_pair<bfloat16, bfloat16>(count);
}

TEST_CASE("cast: every bfloat16 survives the way to fp32 and back, NaN stays NaN", "[ops]") {
  context<cpu> ctx(context_options{1});
  tensor<bfloat16> x(1, 65536);
  for (std::uint32_t bits = 0; bits < 65536; ++bits) x.values[bits].bits = static_cast<std::uint16_t>(bits);
  const tensor<bfloat16> back = converted<bfloat16>(ctx, converted<float>(ctx, x));
  int wrong = 0;
  for (index_t i = 0; i < 65536; ++i) {
    const bool nan = std::isnan(x.at(0, i));
    if (nan ? !std::isnan(back.at(0, i))
            : x.values[static_cast<std::size_t>(i)].bits != back.values[static_cast<std::size_t>(i)].bits)
      ++wrong;
  }
  CHECK(wrong == 0);
}

}  // namespace cast_tests
