// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Workspace, buffers and the CPU's context.

#include <cstdint>
#include <graft/backend/cpu/context.hpp>
#include <vector>

#include "catch.hpp"

namespace context_tests {

using namespace graft;

namespace {

// Host memory that counts what is out, and has an end.
struct counted_memory {
  static constexpr std::size_t alignment = 256;
  std::size_t* out;
  std::size_t most = std::size_t{1} << 40;
  void* allocate(std::size_t bytes) {
    GRAFT_CHECK(*out + bytes <= most, "counted memory: expected at most ", most, " bytes, got ", *out + bytes);
    *out += bytes;
    return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  }
  void deallocate(void* pointer, std::size_t bytes) {
    *out -= bytes;
    std::free(pointer);
  }
};

// What a step does: long-lived views, and scopes within scopes.
void step(context<cpu>& ctx) {
  workspace_scope outer(ctx);
  const auto kept = ctx.allocate<float>(1000, 1000);
  kept(999, 999) = 1.0f;
  for (int layer = 0; layer < 4; ++layer) {
    workspace_scope inner(ctx);
    const auto scratch = ctx.allocate<double>(300000);
    scratch[299999] = 2.0;
    workspace_scope innermost(ctx);
    ctx.allocate<char>(5000000)[4999999] = 'x';
  }
  CHECK(kept(999, 999) == 1.0f);
}

}  // namespace

TEST_CASE("the second step asks the system for no memory", "[arena]") {
  context<cpu> ctx({1, 0});
  step(ctx);
  const std::size_t requests = ctx.workspace().requests();
  const std::size_t peak = ctx.workspace().peak_bytes();
  CHECK(requests >= 1);
  CHECK(peak >= 4000000 + 2400000 + 5000000);
  CHECK(peak < 4000000 + 2400000 + 5000000 + 4096);
  for (int i = 0; i < 3; ++i) step(ctx);
  CHECK(ctx.workspace().requests() == requests);
  CHECK(ctx.workspace().peak_bytes() == peak);
  CHECK(ctx.workspace().live_bytes() == 0);
}

TEST_CASE("scopes nest and give back in order", "[arena]") {
  context<cpu> ctx({1, 0});
  workspace_scope all(ctx);
  const auto first = ctx.allocate<std::int32_t>(10);
  const std::size_t live = ctx.workspace().live_bytes();
  std::int32_t* inner_data = nullptr;
  {
    workspace_scope inner(ctx);
    inner_data = ctx.allocate<std::int32_t>(7).data;
    CHECK(ctx.workspace().live_bytes() > live);
    CHECK(inner_data >= first.data + 10);
  }
  CHECK(ctx.workspace().live_bytes() == live);
  CHECK(ctx.allocate<std::int32_t>(7).data == inner_data);
}

TEST_CASE("views of a workspace are aligned, disjoint and shaped", "[arena]") {
  context<cpu> ctx({1, 0});
  workspace_scope scope(ctx);
  const auto a = ctx.allocate<char>(1), b = ctx.allocate<char>(65);
  const auto c = ctx.allocate<double>(3, 5, 7);
  for (const void* p : {static_cast<void*>(a.data), static_cast<void*>(b.data), static_cast<void*>(c.data)})
    CHECK(reinterpret_cast<std::uintptr_t>(p) % 64 == 0);
  CHECK(b.data >= a.data + 1);
  CHECK(reinterpret_cast<char*>(c.data) >= b.data + 65);
  CHECK(c.extent(0) == 3);
  CHECK(c.extent(2) == 7);
  CHECK(c.contiguous());
  CHECK(ctx.allocate<float>(0, 4).data != nullptr);
  CHECK_THROWS_WITH(ctx.allocate<float>(-1), "workspace: expected extents of at least 0, got -1");
}

TEST_CASE("chunks become one when the arena is empty", "[arena]") {
  std::size_t out = 0;
  {
    memory_arena<counted_memory> arena(counted_memory{&out});
    const auto begin = arena.position();
    std::vector<char*> pieces;
    for (int i = 0; i < 40; ++i) {
      pieces.push_back(static_cast<char*>(arena.allocate(300000)));
      pieces.back()[0] = static_cast<char>(i);
      pieces.back()[299999] = static_cast<char>(i);
      CHECK(reinterpret_cast<std::uintptr_t>(pieces.back()) % 256 == 0);
    }
    // Growing does not move what was handed out.
    for (int i = 0; i < 40; ++i)
      CHECK((pieces[static_cast<std::size_t>(i)][0] == i && pieces[static_cast<std::size_t>(i)][299999] == i));
    const std::size_t requests = arena.requests();
    CHECK(requests > 1);
    CHECK(out == arena.reserved_bytes());
    arena.release(begin);
    CHECK(arena.requests() == requests + 1);
    CHECK(arena.reserved_bytes() >= arena.peak_bytes());
    CHECK(arena.reserved_bytes() < arena.peak_bytes() + (std::size_t{1} << 20));
    for (int i = 0; i < 40; ++i) arena.allocate(300000);
    CHECK(arena.requests() == requests + 1);
  }
  CHECK(out == 0);
}

TEST_CASE("an arena that would grow too far takes what it needs", "[arena]") {
  constexpr std::size_t unit = std::size_t{1} << 20;
  std::size_t out = 0;
  memory_arena<counted_memory> arena(counted_memory{&out, 10 * unit});
  arena.allocate(4 * unit);
  arena.allocate(3 * unit);
  arena.allocate(3 * unit);  // half as much again as there is would be 3.5
  CHECK(out == 10 * unit);
  CHECK_THROWS_WITH(arena.allocate(1), Catch::Contains("counted memory: expected at most"));
  CHECK(out == 10 * unit);
}

TEST_CASE("a buffer is zero, moves and gives views", "[buffer]") {
  buffer<float, host_space> a(3000000);
  bool zero = true;
  for (index_t i = 0; i < a.size(); ++i) zero = zero && a.data()[i] == 0.0f;
  CHECK(zero);
  CHECK(reinterpret_cast<std::uintptr_t>(a.data()) % 64 == 0);
  a.view(1000, 3000)(999, 2999) = 5.0f;
  float* data = a.data();
  buffer<float, host_space> b(std::move(a));
  CHECK(b.data() == data);
  CHECK(b.view()[2999999] == 5.0f);
  CHECK(b.view().size() == 3000000);
  CHECK_THROWS_WITH(b.view(3000001), "buffer: expected a view of at most 3000000 elements, got 3000001");
  CHECK((buffer<float, host_space>().view().empty()));
}

TEST_CASE("the CPU's context", "[context]") {
  STATIC_REQUIRE(Context<context<cpu>>);
  CHECK(context<cpu>({3, 0}).threads() == 3);
  CHECK(context<cpu>().threads() >= 1);
  CHECK_FALSE(context<cpu>().device_name().empty());
  CHECK_THROWS_WITH(context<cpu>({-1, 0}), "context: expected threads of at least 0 (0: all), got -1");
}

}  // namespace context_tests
