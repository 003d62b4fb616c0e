// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Scan and sort on CUDA, and a step captured in a CUDA graph: nothing in it waits for the device or asks for memory.

#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/grouped_gemm.cuh>
#include <graft/backend/cuda/scan_sort.cuh>

#include "array_laws.hpp"

namespace graft::test {

TEST_CASE("cuda: exclusive scan") {
  context<cuda> ctx;
  check_scan(ctx);
}

TEST_CASE("cuda: counting sort") {
  context<cuda> ctx;
  check_counting_sort(ctx);
}

TEST_CASE("cuda: sort of rows") {
  context<cuda> ctx;
  check_argsort_rows<float>(ctx);
  check_argsort_rows<double>(ctx);
}

// y[i] = x[order[i]], and zeros where order is -1.
struct gather_rows {
  matrix_view<const float, device_space> x;
  vector_view<const std::int32_t, device_space> order;
  matrix_view<float, device_space> y;
  template <class G>
  GRAFT_HOST_DEVICE void operator()(G& group, index_t row) const {
    const index_t from = order[row];
    group.for_each(y.extent(1), [&](index_t i) { y(row, i) = from < 0 ? 0.0f : x(from, i); });
  }
};

TEST_CASE("cuda: a captured step gives the same bits as an eager one, for other tokens too") {
  using ctx_type = context<cuda>;
  constexpr index_t tokens = 300, experts = 5, width = 64, hidden = 96;
  ctx_type ctx;
  const resident<ctx_type, float> w(ctx, tensor<float>::random(experts * hidden, width, 1));
  const resident<ctx_type, float> x(ctx, tensor<float>(tokens, width)), sorted(ctx, tensor<float>(tokens, width));
  const resident<ctx_type, float> y(ctx, tensor<float>(tokens, hidden)),
      dw(ctx, tensor<float>(experts * hidden, width));
  const resident<ctx_type, float> dense(ctx, tensor<float>(tokens, tokens));
  const resident<ctx_type, std::int32_t> keys(ctx, one_row(std::vector<std::int32_t>(tokens, 0)));
  const resident<ctx_type, std::int32_t> order(ctx, one_row(std::vector<std::int32_t>(tokens, 0)));
  const resident<ctx_type, std::int32_t> offsets(ctx, one_row(std::vector<std::int32_t>(experts + 1, 0)));

  const auto step = [&] {
    const view<float, 3, device_space> w_experts(w.matrix().data, experts, hidden, width);
    const view<float, 3, device_space> dw_experts(dw.matrix().data, experts, hidden, width);
    counting_sort(ctx, keys.vector(), experts, offsets.vector(), order.vector());
    launch_rows(ctx, tokens, width, gather_rows{x.matrix(), order.vector(), sorted.matrix()});
    fill_zero(ctx, y.matrix());
    grouped_gemm_nt(ctx, y.matrix(), sorted.matrix(), w_experts, offsets.vector());
    grouped_gemm_tn(ctx, dw_experts, y.matrix(), sorted.matrix(), offsets.vector());
    gemm_nt(ctx, dense.matrix(), y.matrix(), y.matrix());
  };
  const auto load = [&](std::uint64_t seed) {
    const random_source source{seed, random_stream::data};
    std::vector<std::int32_t> chosen(tokens);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      chosen[i] = static_cast<std::int32_t>(source.below(experts, 9, i)) - 1;
    copy_from_host(ctx, keys.vector(), chosen.data());  // the last expert has no token
    copy_from_host(ctx, x.matrix(), tensor<float>::random(tokens, width, seed).values.data());
  };
  const auto results = [&] { return std::tuple{y.get(), dw.get(), dense.get(), order.get()}; };
  const auto same = [](const auto& a, const auto& b) {
    return same_bits(std::get<0>(a), std::get<0>(b)) && same_bits(std::get<1>(a), std::get<1>(b)) &&
           same_bits(std::get<2>(a), std::get<2>(b)) && same_bits(std::get<3>(a), std::get<3>(b));
  };

  load(1);
  step();
  const auto first = results();
  load(2);
  step();
  const auto second = results();
  REQUIRE(!same(first, second));

  const auto requests = ctx.workspace().requests();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  GRAFT_CUDA(cudaStreamBeginCapture(ctx.stream(), cudaStreamCaptureModeGlobal));
  step();
  GRAFT_CUDA(cudaStreamEndCapture(ctx.stream(), &graph));
  GRAFT_CUDA(cudaGraphInstantiate(&replay, graph, 0));
  CHECK(ctx.workspace().requests() == requests);

  load(1);
  GRAFT_CUDA(cudaGraphLaunch(replay, ctx.stream()));
  CHECK(same(results(), first));
  load(2);
  GRAFT_CUDA(cudaGraphLaunch(replay, ctx.stream()));
  CHECK(same(results(), second));
  GRAFT_CUDA(cudaGraphExecDestroy(replay));
  GRAFT_CUDA(cudaGraphDestroy(graph));
}

}  // namespace graft::test
