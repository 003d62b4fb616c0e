// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The CUDA context, its memory, and row algorithms: the laws of every backend, and the same rows as on the CPU.

#include <graft/backend/communicator.hpp>
#include <graft/backend/cpu/arrays.hpp>
#include <graft/backend/cpu/rows.hpp>
#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/communicator.cuh>
#include <graft/backend/cuda/graph.cuh>
#include <graft/backend/cuda/rows.cuh>

#include "array_laws.hpp"
#include "row_laws.hpp"

namespace graft::test {

TEST_CASE("cuda context: names its device, refuses one that is not there") {
  context<cuda> ctx;
  CHECK(!ctx.device_name().empty());
  CHECK(ctx.multiprocessors() > 0);
  try {
    context<cuda> missing({.threads = 0, .device = 12345});
    FAIL("device 12345 was accepted");
  } catch (const error& e) {
    CHECK(std::string(e.what()).find("got 12345") != std::string::npos);
  }
}

TEST_CASE("cuda: a failing call is named") {
  try {
    GRAFT_CUDA(cudaSetDevice(-1));
    FAIL("device -1 was accepted");
  } catch (const error& e) {
    CHECK(std::string(e.what()).find("cudaSetDevice(-1)") != std::string::npos);
  }
  (void)cudaGetLastError();
}

TEST_CASE("cuda: copies and zeros") {
  context<cuda> ctx;
  check_copies(ctx);
}

TEST_CASE("cuda: workspace") {
  context<cuda> ctx;
  check_workspace(ctx, 256);
}

TEST_CASE("cuda: rows and elements") {
  context<cuda> ctx;
  check_row_laws(ctx);
}

TEST_CASE("cuda: rows give what the CPU's rows give") {
  context<cuda> device;
  context<cpu> host;
  for (const index_t width : {5, 700, 3000}) {
    const auto x = tensor<float>::random(40, width, 21);
    const auto probe = [&]<class Ctx>(Ctx& ctx) {
      const resident<Ctx, float> in(ctx, x), doubled(ctx, tensor<float>(40, width));
      const resident<Ctx, double> result(ctx, tensor<double>(40, probe_columns));
      launch_rows(ctx, 40, width, probe_row<typename Ctx::space>{in.matrix(), doubled.matrix(), result.matrix()});
      return std::pair{doubled.get(), result.get()};
    };
    const auto [device_doubled, device_result] = probe(device);
    const auto [host_doubled, host_result] = probe(host);
    CHECK(same_bits(device_doubled, host_doubled));
    // All but the sum is exact; two sums of the same terms differ by at most both bounds.
    CHECK(mismatch(device_result, host_result, [&](index_t r, index_t c) {
            double size = 0;
            for (index_t i = 0; i < width; ++i) size += std::abs(x.at(r, i));
            return c == probe_sum ? 2 * bound<float>(size, static_cast<double>(width), size) : 0x1p-120;
          }) == "");
  }
}

// Any number of elements by a lambda: what a user would write.
TEST_CASE("cuda: launch_elements takes a lambda") {
  context<cuda> ctx;
  const resident<context<cuda>, float> y(ctx, tensor<float>(1, 1000));
  const auto values = y.vector();
  launch_elements(ctx, 1000, [=] __device__(index_t i) { values[i] = static_cast<float>(i) / 8; });
  const auto got = y.get();
  bool right = true;
  for (index_t i = 0; i < 1000; ++i) right = right && got.at(0, i) == static_cast<double>(i) / 8;
  CHECK(right);
}

template <class C>
void check_lone_rank(context<cuda>& ctx, C& communicator) {
  static_assert(Communicator<C, context<cuda>>);
  CHECK(communicator.rank() == 0);
  CHECK(communicator.size() == 1);
  const auto values = tensor<float>::random(1, 1001, 31);
  const auto narrow_values = tensor<bfloat16>::random(1, 1001, 32);
  const resident<context<cuda>, float> wide(ctx, values);
  const resident<context<cuda>, bfloat16> narrow(ctx, narrow_values);
  communicator.all_reduce_sum(ctx, wide.vector());
  communicator.broadcast(ctx, wide.vector(), 0);
  communicator.all_reduce_sum(ctx, narrow.vector());
  const resident<context<cuda>, double> widest(ctx, tensor<double>::random(1, 1001, 33));
  communicator.all_reduce_sum(ctx, widest.vector());
  communicator.broadcast(ctx, widest.vector(), 0);
  CHECK(same_bits(widest.get(), tensor<double>::random(1, 1001, 33)));
  const std::vector<std::int64_t> counts{1, -2, std::int64_t{1} << 40};
  const buffer<std::int64_t, device_space> exchanged(3);
  copy_from_host(ctx, exchanged.view(), counts.data());
  communicator.all_reduce_sum(ctx, exchanged.view());
  communicator.broadcast(ctx, exchanged.view(), 0);
  std::vector<std::int64_t> back(3);
  copy_to_host(ctx, back.data(), exchanged.view());
  CHECK(back == counts);
  CHECK(same_bits(wide.get(), values));
  CHECK(same_bits(narrow.get(), narrow_values));
  CHECK_THROWS_AS(communicator.broadcast(ctx, wide.vector(), 1), error);
}

TEST_CASE("cuda: a lone rank keeps its values") {
  context<cuda> ctx;
  self_communicator self;
  check_lone_rank(ctx, self);
#if defined(GRAFT_HAS_NCCL)
  nccl_communicator nccl;
  check_lone_rank(ctx, nccl);
#endif
}

// The calls of a communicator can be part of a recording: here those of the rank of a launch of one.
TEST_CASE("cuda: what a communicator does is recorded and replayed") {
  context<cuda> ctx;
#if defined(GRAFT_HAS_NCCL)
  const nccl_communicator communicator{launch_ranks{}};
#else
  const self_communicator communicator;
#endif
  const buffer<float, device_space> values(1000);
  const auto all = values.view();
  const auto add = [=] __device__(index_t i) { all[i] += static_cast<float>(i); };
  recorded_step<context<cuda>> step;
  for (int turn = 0; turn < 4; ++turn) {
    step.run(
        ctx, [] { return recording_key(); },
        [&] {
          launch_elements(ctx, 1000, add);
          communicator.all_reduce_sum(ctx, all);
          communicator.broadcast(ctx, all, 0);
        });
    CHECK(step.recorded() == (turn > 0));
  }
  std::vector<float> got(1000), wanted(1000);
  for (std::size_t i = 0; i < 1000; ++i) wanted[i] = static_cast<float>(4 * i);
  copy_to_host(ctx, got.data(), values.view());
  CHECK(got == wanted);
}

}  // namespace graft::test
