// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Training speed on the CPU: tokens per second and GFLOP/s of whole steps (forward, backward, AdamW) in fp32 and bf16,
// dense and mixture, beside the rate of one large product on the same threads. Steps of the two precisions are
// interleaved, so that a machine whose speed drifts does not favour one; medians are printed.
//
//   train_step [width = 512] [threads = 0] [steps = 7]

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/models/counts.hpp>
#include <graft/models/transformer.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>
#include <graft/train/trainer.hpp>

#include "common/measuring.hpp"

namespace {

using graft::index_t;
using namespace bench;

// Tokens that are random but not uniform, so that the loss has something to learn.
struct random_tokens {
  index_t vocabulary;
  void fill(index_t step, graft::matrix_view<std::int32_t> inputs, graft::matrix_view<std::int32_t> targets) const {
    const graft::random_source random{1, graft::random_stream::data};
    for (index_t i = 0; i < inputs.size(); ++i) {
      const auto a = random.below(static_cast<std::uint64_t>(vocabulary), static_cast<std::uint64_t>(step),
                                  static_cast<std::uint64_t>(i));
      inputs.data[i] = static_cast<std::int32_t>(a * a % static_cast<std::uint64_t>(vocabulary));
      targets.data[i] = static_cast<std::int32_t>((a + 1) % static_cast<std::uint64_t>(vocabulary));
    }
  }
};

template <class Model>
class measured {
 public:
  measured(graft::context<graft::cpu>& context, const graft::transformer_shape& shape,
           const graft::training_options& options)
      : model_(context, shape), options_(options) {
    model_.initialize(1);
    trainer_ = std::make_unique<graft::trainer<Model>>(model_, options);
    source_.vocabulary = shape.vocabulary;
  }
  double step() { return trainer_->step(source_).seconds; }
  double flops() const {
    return graft::flops_per_token(model_.shape(), options_.positions, model_.mixture()).train *
           static_cast<double>(options_.tokens_per_step());
  }

 private:
  Model model_;
  graft::training_options options_;
  std::unique_ptr<graft::trainer<Model>> trainer_;
  random_tokens source_{};
};

// GFLOP/s of one 2048 x 2048 x 2048 product.
template <class T>
double product_rate(graft::context<graft::cpu>& context) {
  constexpr index_t n = 2048;
  graft::buffer<T, graft::host_space> x(n * n), w(n * n), y(n * n);
  for (index_t i = 0; i < n * n; ++i)
    x.data()[i] = T(static_cast<float>(i % 13) * 0.1f - 0.5f), w.data()[i] = T(static_cast<float>(i % 7) * 0.1f - 0.3f);
  std::vector<double> seconds;
  for (int i = 0; i < 6; ++i) {
    const auto start = clock_type::now();
    gemm_nt(context, y.view(n, n), x.view(n, n), w.view(n, n), graft::accumulate::no);
    if (i > 0) seconds.push_back(std::chrono::duration<double>(clock_type::now() - start).count());
  }
  return 2.0 * n * n * n / median(seconds) * 1e-9;
}

template <template <class> class ModelOf>
void compare(const char* name, graft::context<graft::cpu>& context, const graft::transformer_shape& shape,
             const graft::training_options& options, int steps, double product32, double product16) {
  measured<ModelOf<graft::compute<graft::fp32, graft::cpu>>> wide(context, shape, options);
  measured<ModelOf<graft::compute<graft::bf16, graft::cpu>>> narrow(context, shape, options);
  std::vector<double> wide_seconds, narrow_seconds, ratios;
  for (int i = 0; i < steps + 1; ++i) {
    const double a = wide.step(), b = narrow.step();
    if (i == 0) continue;
    wide_seconds.push_back(a);
    narrow_seconds.push_back(b);
    ratios.push_back(a / b);
  }
  const auto tokens = static_cast<double>(options.tokens_per_step());
  const auto line = [&](const char* precision, double flops, double seconds, double product) {
    std::printf("%-8s %-5s %9.0f tokens/s %8.1f GFLOP/s  %4.0f %% of one product's %.0f\n", name, precision,
                tokens / seconds, flops / seconds * 1e-9, 100 * flops / seconds * 1e-9 / product, product);
  };
  line("fp32", wide.flops(), median(wide_seconds), product32);
  line("bf16", narrow.flops(), median(narrow_seconds), product16);
  std::printf("%-8s bf16 is %.2f times as fast as fp32 (median of %d pairs)\n", name, median(ratios), steps);
}

template <class Compute>
using mixture_of = graft::moe_transformer<graft::top_k<2>, graft::switch_loss, graft::routed, Compute>;

}  // namespace

int main(int argc, char** argv) {
  const index_t width = argc > 1 ? std::atoll(argv[1]) : 512;
  const int threads = argc > 2 ? std::atoi(argv[2]) : 0;
  const int steps = argc > 3 ? std::atoi(argv[3]) : 7;
  graft::context<graft::cpu> context({.threads = threads});
  graft::transformer_shape shape{.vocabulary = 288,
                                 .width = width,
                                 .blocks = 4,
                                 .heads = width / 64,
                                 .kv_heads = width / 64,
                                 .head_dim = 64,
                                 .hidden = width * 8 / 3 / 32 * 32,
                                 .positions = 256};
  graft::training_options options;
  options.steps = 1000;
  options.sequences = 8;
  std::printf("%s, %d threads, width %lld, 4 blocks, %lld tokens a step\n", context.device_name().c_str(),
              context.threads(), static_cast<long long>(width), static_cast<long long>(options.tokens_per_step()));
  const double product32 = product_rate<float>(context), product16 = product_rate<graft::bfloat16>(context);
  compare<graft::dense_transformer>("dense", context, shape, options, steps, product32, product16);
  shape.experts = 4;
  compare<mixture_of>("mixture", context, shape, options, steps, product32, product16);
  return 0;
}
