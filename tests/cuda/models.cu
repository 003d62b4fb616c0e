// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Whole models and training on CUDA: losses and gradients against the CPU in fp64, the same bits twice, and a training
// step that neither waits for the device nor asks for memory.

#include <graft/backend/cpu/cpu.hpp>
#include <graft/backend/cuda/cuda.cuh>

#include "model_laws.hpp"

namespace graft::test {

TEST_CASE("cuda models: fp32", "[model][large]") {
  context<cuda> device;
  context<cpu> host;
  check_models<float>(device, host);
}
TEST_CASE("cuda models: bf16", "[model]") {
  context<cuda> device;
  context<cpu> host;
  check_models<bfloat16>(device, host);
}

TEST_CASE("cuda training: dense", "[model][large]") {
  context<cuda> device;
  context<cpu> host;
  check_training<no_mixture, fp32>(device, host, 0);
  check_training<no_mixture, bf16>(device, host, 0);
}
TEST_CASE("cuda training: mixture", "[model]") {
  context<cuda> device;
  context<cpu> host;
  check_training<mixture_with<2>, fp32>(device, host, 5);
  check_training<mixture_with<2>, bf16>(device, host, 5);
}

// Capture refuses whatever waits for the device or asks it for memory.
TEST_CASE("cuda training: a captured step gives the same bits as an eager one", "[model]") {
  using step_training = training<mixture_with<2>, bf16, context<cuda>>;
  context<cuda> ctx;
  const training_options options = few_steps();
  std::vector<std::int32_t> inputs(static_cast<std::size_t>(options.tokens_per_step())), targets(inputs.size());
  const resident<context<cuda>, std::int32_t> input(ctx, one_row(inputs)), target(ctx, one_row(targets));
  const auto load = [&](index_t step) {
    next_token_source{}.fill(step, matrix_view<std::int32_t>(inputs.data(), options.sequences, options.positions),
                             matrix_view<std::int32_t>(targets.data(), options.sequences, options.positions));
    copy_from_host(ctx, input.vector(), inputs.data());
    copy_from_host(ctx, target.vector(), targets.data());
  };
  const auto one_step = [&](step_training& t, index_t step) {
    const view<const std::int32_t, 2, device_space> x(input.vector().data, options.sequences, options.positions),
        y(target.vector().data, options.sequences, options.positions);
    t.model.clear_metrics();
    t.model.forward_backward(x, y, {.token_scale = 1.0 / 256, .auxiliary_scale = 1, .balance_groups = 2});
    auto& parameters = t.model.parameters();
    t.run.optimizer().update(ctx, parameters.master(), parameters.narrow(), parameters.gradients(), 0.01, step);
  };

  step_training eager(ctx, 5), replayed(ctx, 5);
  for (const index_t step : {0, 1}) {
    load(step);
    one_step(eager, step);
  }
  load(0);
  one_step(replayed, 0);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  GRAFT_CUDA(cudaStreamBeginCapture(ctx.stream(), cudaStreamCaptureModeGlobal));
  one_step(replayed, 1);
  GRAFT_CUDA(cudaStreamEndCapture(ctx.stream(), &graph));
  GRAFT_CUDA(cudaGraphInstantiate(&replay, graph, 0));
  load(1);
  GRAFT_CUDA(cudaGraphLaunch(replay, ctx.stream()));
  CHECK(same_state(replayed.state(), eager.state()));
  CHECK(replayed.model.metrics().loss_sum == eager.model.metrics().loss_sum);
  GRAFT_CUDA(cudaGraphExecDestroy(replay));
  GRAFT_CUDA(cudaGraphDestroy(graph));
}

}  // namespace graft::test
