// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <string>

#include <graft/core/error.hpp>
#include <graft/core/transformer_shape.hpp>

namespace transformer_shape_tests {

using namespace graft;

namespace {

constexpr transformer_shape valid() {
  transformer_shape shape;
  shape.vocabulary = 256;
  shape.width = 64;
  shape.blocks = 2;
  shape.heads = 8;
  shape.kv_heads = 2;
  shape.head_dim = 16;
  shape.hidden = 160;
  shape.positions = 128;
  return shape;
}
static_assert(valid().query_width() == 128 && valid().kv_width() == 32 && valid().qkv_width() == 192);

// What the check says about a shape, "" if nothing.
std::string complaint(const transformer_shape& shape) {
  try {
    check_shape(shape);
  } catch (const error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("transformer_shape: a valid shape passes", "[core]") {
  CHECK(complaint(valid()) == "");
  transformer_shape mixture = valid();
  mixture.experts = 7;
  CHECK(complaint(mixture) == "");
  CHECK(mixture != valid());
  mixture.experts = 0;
  CHECK(mixture == valid());
  mixture.scaling.factor = 8;
  CHECK(mixture != valid());
}

TEST_CASE("transformer_shape: every size must be positive", "[core]") {
  index_t transformer_shape::*const sizes[] = {&transformer_shape::vocabulary, &transformer_shape::width,
                                               &transformer_shape::blocks,     &transformer_shape::heads,
                                               &transformer_shape::kv_heads,   &transformer_shape::head_dim,
                                               &transformer_shape::hidden,     &transformer_shape::positions};
  for (const auto size : sizes) {
    for (const index_t bad : {index_t{0}, index_t{-4}}) {
      transformer_shape shape = valid();
      shape.*size = bad;
      CHECK(complaint(shape).starts_with("transformer_shape: every size must be positive, got vocabulary="));
    }
  }
  transformer_shape shape = valid();
  shape.hidden = 0;
  CHECK(complaint(shape) ==
        "transformer_shape: every size must be positive, got vocabulary=256, width=64, blocks=2, heads=8, kv_heads=2, "
        "head_dim=16, "
        "hidden=0, positions=128");
}

TEST_CASE("transformer_shape: sizes that contradict each other", "[core]") {
  transformer_shape shape = valid();
  shape.kv_heads = 3;
  CHECK(complaint(shape) == "transformer_shape: expected heads to be a multiple of kv_heads, got heads=8, kv_heads=3");
  shape = valid();
  shape.head_dim = 15;
  CHECK(complaint(shape) == "transformer_shape: rotary embedding needs an even head_dim, got 15");
  shape = valid();
  shape.experts = -1;
  CHECK(complaint(shape) == "transformer_shape: experts cannot be negative, got -1");
}

TEST_CASE("error: a check joins its parts, and only when it fails", "[core]") {
  int evaluated = 0;
  const auto part = [&] { return ++evaluated; };
  GRAFT_CHECK(true, "never built ", part());
  CHECK(evaluated == 0);
  std::string what;
  try {
    GRAFT_CHECK(1 > 2, "top_k: expected k <= experts, got k=", 9, ", experts=", 8.5);
  } catch (const std::runtime_error& e) {
    what = e.what();
  }
  CHECK(what == "top_k: expected k <= experts, got k=9, experts=8.5");
}

}  // namespace transformer_shape_tests
