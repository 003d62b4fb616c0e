// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include <graft/backend/cuda/cuda.cuh>
#include <graft/models/counts.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>
#include <graft/train/trainer.hpp>

#include "gpu_report.hpp"

namespace bench {
namespace {

using graft::index_t;
using device_context = graft::context<graft::cuda>;

// The median of the seconds of `count` calls, after one that is not counted.
template <class F>
double median_seconds(device_context& context, int count, const F& run) {
  std::vector<double> seconds;
  for (int i = 0; i <= count; ++i) {
    context.synchronize();
    const auto start = std::chrono::steady_clock::now();
    run();
    context.synchronize();
    if (i > 0) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + count / 2, seconds.end());
  return seconds[static_cast<std::size_t>(count / 2)];
}

// Normal numbers. Products of zeros draw less power and run faster than any real one.
template <class T>
struct random_element {
  graft::vector_view<T, graft::device_space> x;
  double deviation;
  std::uint64_t seed;
  GRAFT_HOST_DEVICE void operator()(index_t i) const {
    const graft::random_source random{seed, graft::random_stream::data};
    x[i] = T(static_cast<float>(deviation * random.normal(0, static_cast<std::uint64_t>(i))));
  }
};

// Tokens that are random but have something to learn.
struct random_tokens {
  index_t vocabulary;
  void fill(index_t step, graft::matrix_view<std::int32_t> inputs, graft::matrix_view<std::int32_t> targets) const {
    const graft::random_source random{1, graft::random_stream::data};
    for (index_t i = 0; i < inputs.size(); ++i) {
      const auto token = static_cast<index_t>(random.below(
          static_cast<std::uint64_t>(vocabulary), static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(i)));
      inputs.data[i] = static_cast<std::int32_t>(token);
      targets.data[i] = static_cast<std::int32_t>((token + 1) % vocabulary);
    }
  }
};

template <class Model>
step_rate steps_of(const graft::transformer_shape& shape, index_t sequences) {
  device_context context;
  Model model(context, shape);
  // Drawn on the device: the declared initialisation runs on the host and takes a minute at this size.
  const auto master = model.parameters().master();
  launch_elements(context, master.extent(0), random_element<float>{master, 0.02, 1});
  const std::vector<float> ones(static_cast<std::size_t>(shape.width), 1.0f);
  for (const graft::tensor_entry& entry : model.layout().tensors)
    if (entry.columns == 0)
      copy_from_host(context, master.rows(entry.offset, entry.offset + entry.size()), ones.data());
  graft::training_options options;
  options.steps = 100;
  options.sequences = sequences;
  options.positions = shape.positions;
  options.learning_rate = 3e-4;
  graft::trainer<Model> trainer(model, options);
  random_tokens source{shape.vocabulary};

  step_rate rate;
  trainer.step(source);
  const auto requests = context.workspace().requests();
  rate.seconds = median_seconds(context, 7, [&] { rate.loss = trainer.step(source).loss; });
  rate.steady = context.workspace().requests() == requests;
  rate.tokens = static_cast<double>(options.tokens_per_step());
  rate.flops = rate.tokens * graft::flops_per_token(shape, shape.positions, model.mixture()).train;
  rate.parameters = static_cast<double>(model.layout().parameter_count());
  rate.peak_bytes = static_cast<double>(context.workspace().peak_bytes());
  return rate;
}

using numbers = graft::compute<graft::bf16, graft::cuda>;

}  // namespace

std::string card() {
  device_context context;
  std::size_t available = 0, total = 0;
  int driver = 0, runtime = 0;
  GRAFT_CUDA(cudaMemGetInfo(&available, &total));
  GRAFT_CUDA(cudaDriverGetVersion(&driver));
  GRAFT_CUDA(cudaRuntimeGetVersion(&runtime));
  return context.device_name() + ", " + std::to_string(context.multiprocessors()) + " multiprocessors, " +
         std::to_string(total >> 30) + " GiB, driver for CUDA " + std::to_string(driver / 1000) + "." +
         std::to_string(driver % 1000 / 10) + ", runtime " + std::to_string(runtime / 1000) + "." +
         std::to_string(runtime % 1000 / 10);
}

double copy_bandwidth() {
  device_context context;
  constexpr index_t count = index_t{1} << 28;
  const graft::buffer<float, graft::device_space> from(count), to(count);
  launch_elements(context, count, random_element<float>{from.view(), 1, 1});
  const double seconds = median_seconds(context, 15, [&] { copy(context, to.view(), from.view()); });
  return 2.0 * sizeof(float) * static_cast<double>(count) / seconds;
}

double product_rate(int n) {
  device_context context;
  const index_t size = n;
  const graft::buffer<graft::bfloat16, graft::device_space> x(size * size), w(size * size), y(size * size);
  launch_elements(context, size * size, random_element<graft::bfloat16>{x.view(), 1, 1});
  launch_elements(context, size * size, random_element<graft::bfloat16>{w.view(), 1, 2});
  constexpr int repeats = 10;
  const double seconds = median_seconds(context, 9, [&] {
    for (int i = 0; i < repeats; ++i) gemm_nt(context, y.view(size, size), x.view(size, size), w.view(size, size));
  });
  return repeats * 2.0 * static_cast<double>(size) * static_cast<double>(size) * static_cast<double>(size) / seconds;
}

step_rate dense_steps() {
  return steps_of<graft::dense_transformer<numbers>>({.vocabulary = 50304,
                                                      .width = 768,
                                                      .blocks = 12,
                                                      .heads = 12,
                                                      .kv_heads = 12,
                                                      .head_dim = 64,
                                                      .hidden = 2048,
                                                      .positions = 1024,
                                                      .tied = true},
                                                     16);
}

step_rate mixture_steps() {
  return steps_of<graft::moe_transformer<graft::top_k<2>, graft::switch_loss, graft::routed, numbers>>(
      {.vocabulary = 50304,
       .width = 768,
       .blocks = 12,
       .heads = 12,
       .kv_heads = 12,
       .head_dim = 64,
       .hidden = 1024,
       .positions = 1024,
       .tied = true,
       .experts = 8},
      16);
}

}  // namespace bench
