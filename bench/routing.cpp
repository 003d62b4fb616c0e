// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// What routing costs on the CPU. First its parts: the router, forward and backward, in time per token; the permutation
// of tokens and the weighted combination of rows in GB/s (every byte that must be read or written, counted once),
// beside the rate of a plain copy of as many bytes. Then the whole: a mixture layer, forward and backward, beside a
// dense layer whose hidden width is that of the K experts of a token together, which is the same number of
// floating-point operations. All of them take turns, so that a machine whose speed drifts favours none; medians are
// printed.
//
//   routing [width = 512] [threads = 0] [rounds = 9] [tokens = 2048]

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/models/transformer.hpp>
#include <graft/policies/balancer/all_balancers.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

#include "common/measuring.hpp"

namespace {

using namespace graft;
using namespace bench;
using balancers = all<switch_loss, z_loss>;

// Weights and gradients of a declaration. Weights are normal, so that tokens spread over the experts.
template <class Specs, class Weights, class Gradients, class Compute>
struct parameters {
  buffer<typename Compute::storage, host_space> weight_arena;
  buffer<typename Compute::master, host_space> gradient_arena;
  Weights weights;
  Gradients gradients;

  explicit parameters(const Specs& specs) {
    const parameter_layout layout = make_layout(specs);
    weight_arena = buffer<typename Compute::storage, host_space>(layout.size);
    gradient_arena = buffer<typename Compute::master, host_space>(layout.size);
    const random_source random{1};
    for (index_t i = 0; i < layout.size; ++i)
      weight_arena.data()[i] =
          typename Compute::storage(static_cast<float>(0.05 * random.normal(0, static_cast<std::uint64_t>(i))));
    weights = bind_parameters<Weights>(specs, weight_arena.view());
    gradients = bind_parameters<Gradients>(specs, gradient_arena.view());
  }
};

template <class T>
buffer<T, host_space> random_values(index_t size, std::uint64_t stream) {
  buffer<T, host_space> result(size);
  const random_source random{2};
  for (index_t i = 0; i < size; ++i)
    result.data()[i] = T(static_cast<float>(random.normal(stream, static_cast<std::uint64_t>(i))));
  return result;
}

// One part of the work: what it is called, how many bytes it moves (0: it is not about bytes), how to run it.
struct part {
  std::string name;
  double bytes;
  std::function<void()> run;
  std::vector<double> seconds{};
};

void take_turns(std::vector<part>& parts, int rounds) {
  for (int round = -1; round < rounds; ++round)  // the first warms up
    for (part& each : parts) {
      const auto start = clock_type::now();
      each.run();
      if (round >= 0) each.seconds.push_back(std::chrono::duration<double>(clock_type::now() - start).count());
    }
}

template <class Compute, int K>
void measure(context<cpu>& context, index_t tokens, index_t width, index_t hidden, index_t experts, int rounds) {
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using mixture_type = mixture<top_k<K>, balancers, routed>;
  const mixture_type policies{};
  const transformer_shape shape{.width = width, .hidden = hidden, .experts = experts};
  using moe_weights = typename mixture_type::template parameters<typename Compute::weight>;
  using moe_gradients = typename mixture_type::template parameters<typename Compute::gradient>;
  using moe_specs = typename mixture_type::template parameters<parameter_spec>;
  using dense_weights = swiglu_ffn_parameters<typename Compute::weight>;
  using dense_gradients = swiglu_ffn_parameters<typename Compute::gradient>;
  parameters<moe_specs, moe_weights, moe_gradients, Compute> moe(policies.specs(shape));
  parameters<swiglu_ffn_parameters<parameter_spec>, dense_weights, dense_gradients, Compute> dense(
      swiglu_ffn_specs(width, K * hidden));

  routing_pass<M, host_space> pass;
  pass.experts = experts;
  pass.positions = tokens;
  pass.at.training = true;
  const auto x_memory = random_values<T>(tokens * width, 1), d_out_memory = random_values<T>(tokens * width, 2);
  buffer<T, host_space> out_memory(tokens * width), d_x_memory(tokens * width), copied(tokens * K * width),
      copy_of(tokens * K * width);
  const view<const T, 2, host_space> x = x_memory.view(tokens, width), d_out = d_out_memory.view(tokens, width);
  const auto out = out_memory.view(tokens, width), d_x = d_x_memory.view(tokens, width);

  // What the parts work on lives as long as they do.
  workspace_scope scope(context);
  const linear_gate gate{};
  auto logits = context.template allocate<M>(tokens, experts), d_logits = context.template allocate<M>(tokens, experts);
  auto selected = context.template allocate<std::int32_t>(tokens, K);
  auto weights = context.template allocate<M>(tokens, K), d_weights = context.template allocate<M>(tokens, K);
  auto rows = context.template allocate<T>(tokens * K, width);
  const auto saved_gate = gate.template forward<Compute>(context, pass, moe.weights.gate, logits, x);
  const auto statistics = route_forward(context, policies.router, policies.balancer, pass, selected, weights,
                                        view<const M, 2, host_space>(logits));
  const auto plan = make_dispatch_plan(context, reshape(selected, tokens * K), experts, K);
  fill_zero(context, d_weights);
  std::vector<index_t> load(static_cast<std::size_t>(experts));
  for (index_t e = 0; e < experts; ++e) load[static_cast<std::size_t>(e)] = plan.offsets[e + 1] - plan.offsets[e];

  const double row = static_cast<double>(width * static_cast<index_t>(sizeof(T))), t = static_cast<double>(tokens);
  std::vector<part> parts;
  parts.push_back({"copy", 2 * K * t * row, [&] { copy(context, copied.view(), copy_of.view()); }});
  parts.push_back({"router forward", 0, [&] {
                     workspace_scope inner(context);
                     gate.template forward<Compute>(context, pass, moe.weights.gate, logits, x);
                     route_forward(context, policies.router, policies.balancer, pass, selected, weights,
                                   view<const M, 2, host_space>(logits));
                   }});
  parts.push_back({"router backward", 0, [&] {
                     workspace_scope inner(context);
                     route_backward(context, policies.router, policies.balancer, pass, d_logits, statistics,
                                    view<const M, 2, host_space>(logits), selected,
                                    view<const M, 2, host_space>(weights), d_weights, 1.0);
                     gate.template backward<Compute>(context, pass, moe.weights.gate, moe.gradients.gate, saved_gate,
                                                     d_logits, x, d_x);
                   }});
  parts.push_back({"dispatch plan", 0, [&] {
                     workspace_scope inner(context);
                     make_dispatch_plan(context, reshape(selected, tokens * K), experts, K);
                   }});
  parts.push_back({"gather tokens", 2 * K * t * row, [&] { gather_tokens(context, rows, x, plan); }});
  parts.push_back(
      {"combine rows", (K + 1) * t * row, [&] { combine_rows(context, out, rows, weights, plan, accumulate::no); }});
  parts.push_back({"combine backward", (2 * K + 1) * t * row,
                   [&] { combine_rows_backward(context, rows, d_weights, d_out, rows, weights, plan); }});
  parts.push_back({"gather backward", (K + 1) * t * row,
                   [&] { combine_rows(context, d_x, rows, view<const M, 2, host_space>{}, plan, accumulate::no); }});
  parts.push_back({"mixture layer", 0, [&] {
                     workspace_scope inner(context);
                     const auto saved = policies.template forward<Compute>(context, moe.weights, pass, x, out);
                     policies.template backward<Compute>(context, moe.weights, moe.gradients, pass, saved, x, d_x,
                                                         d_out, 1.0);
                   }});
  parts.push_back({"dense layer", 0, [&] {
                     workspace_scope inner(context);
                     const auto saved = swiglu_ffn_forward<Compute>(context, dense.weights, x, out);
                     swiglu_ffn_backward<Compute>(context, dense.weights, dense.gradients, saved, x, d_x, d_out);
                   }});
  take_turns(parts, rounds);

  std::printf("\n%s, %lld tokens, D=%lld, F=%lld, E=%lld, K=%d, tokens of an expert %lld to %lld\n",
              Compute::precision::name, static_cast<long long>(tokens), static_cast<long long>(width),
              static_cast<long long>(hidden), static_cast<long long>(experts), K,
              static_cast<long long>(*std::min_element(load.begin(), load.end())),
              static_cast<long long>(*std::max_element(load.begin(), load.end())));
  const double copy_rate = parts.front().bytes / median(parts.front().seconds);
  double routing = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const double seconds = median(parts[i].seconds);
    if (i > 0 && i + 2 < parts.size()) routing += seconds;
    std::printf("  %-17s %9.3f ms %8.1f ns/token", parts[i].name.c_str(), seconds * 1e3, seconds / t * 1e9);
    if (parts[i].bytes > 0)
      std::printf("  %6.1f GB/s, %3.0f %% of a copy", parts[i].bytes / seconds * 1e-9,
                  100 * parts[i].bytes / seconds / copy_rate);
    std::printf("\n");
  }
  const std::vector<double>& mixed = parts[parts.size() - 2].seconds;
  const std::vector<double>& plain = parts.back().seconds;
  std::vector<double> ratios;
  for (std::size_t i = 0; i < mixed.size(); ++i) ratios.push_back(mixed[i] / plain[i]);
  // Three products of 2 T K F D operations, once in the forward pass and twice in the backward pass.
  const double operations = 18.0 * t * static_cast<double>(K * hidden * width);
  std::printf(
      "  mixture %.1f GFLOP/s, dense %.1f GFLOP/s: %.1f %% longer (median of %d pairs); the parts above are "
      "%.1f %% of the mixture\n",
      operations / median(mixed) * 1e-9, operations / median(plain) * 1e-9, 100 * (median(ratios) - 1), rounds,
      100 * routing / median(mixed));
}

}  // namespace

int main(int argc, char** argv) {
  const index_t width = argc > 1 ? std::atoll(argv[1]) : 512;
  const int threads = argc > 2 ? std::atoi(argv[2]) : 0;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 9;
  const index_t tokens = argc > 4 ? std::atoll(argv[4]) : 2048;
  if (width < 64 || rounds < 1 || tokens < 1) {
    std::fprintf(stderr, "routing: expected a width of at least 64, rounds and tokens of at least 1\n");
    return 2;
  }
  context<cpu> context({.threads = threads});
  std::printf("%s, %d threads\n", context.device_name().c_str(), context.threads());
  const index_t hidden = width * 8 / 3 / 32 * 32;
  measure<compute<fp32, cpu>, 2>(context, tokens, width, hidden, 8, rounds);
  measure<compute<bf16, cpu>, 2>(context, tokens, width, hidden, 8, rounds);
  measure<compute<bf16, cpu>, 8>(context, tokens, width, std::max<index_t>(hidden / 4 / 32 * 32, 32), 64, rounds);
  return 0;
}
