// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Generation on the CPU: tokens per second with a cache of keys and values and without, at a given length of context,
// for a dense model and a mixture of 4 experts of which a token uses 2, of the size of the "quick" preset, in fp32 and
// bf16. A cached token is timed as what extend takes with `context` positions held; an uncached one as
// next_token_logits of so many tokens. The two alternate, so that a machine whose speed drifts does not favour one;
// medians are printed.
//
//   generation [context = 512] [threads = 0] [rounds = 9]

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/models/generation.hpp>
#include <graft/models/transformer.hpp>
#include <graft/policies/balancer/all_balancers.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

#include "common/measuring.hpp"

namespace {

using graft::index_t;
using namespace bench;

template <class Model>
void measure(const char* name, graft::context<graft::cpu>& context, const graft::transformer_shape& shape,
             index_t length, int rounds) {
  using M = typename Model::M;
  Model model(context, shape);
  model.initialize(1);
  std::vector<std::int32_t> tokens;
  for (index_t i = 0; i < length; ++i) tokens.push_back(static_cast<std::int32_t>(i * i % 251));
  const graft::vector_view<const std::int32_t> text(tokens.data(), length);
  graft::buffer<M, graft::host_space> logits(shape.vocabulary);
  auto cache = model.make_cache(length);

  constexpr int cached_tokens = 32;
  std::vector<double> prefill, cached, uncached;
  for (int round = 0; round < rounds + 1; ++round) {
    cache.clear();
    const double first = seconds_of(1, [&] { model.extend(cache, text, logits.view()); });
    // The token at the last position, again and again.
    const double one = seconds_of(cached_tokens, [&] {
      cache.length = length - 1;
      model.extend(cache, text.rows(length - 1, length), logits.view());
    });
    const double all = seconds_of(
        1, [&] { model.next_token_logits(logits.view(1, shape.vocabulary), reshape(text, index_t{1}, length)); });
    if (round == 0) continue;
    prefill.push_back(first);
    cached.push_back(one);
    uncached.push_back(all);
  }
  std::printf("%-8s %-5s %9.0f tokens/s cached %9.1f uncached: %5.1f times; the prompt at %8.0f tokens/s\n", name,
              Model::compute_type::precision::name, 1 / median(cached), 1 / median(uncached),
              median(uncached) / median(cached), static_cast<double>(length) / median(prefill));
}

template <class Compute>
using mixture_of = graft::moe_transformer<graft::top_k<2>, graft::no_balancer, graft::routed, Compute>;
using wide = graft::compute<graft::fp32, graft::cpu>;
using narrow = graft::compute<graft::bf16, graft::cpu>;

}  // namespace

int main(int argc, char** argv) {
  const index_t length = argc > 1 ? std::atoll(argv[1]) : 512;
  const int threads = argc > 2 ? std::atoi(argv[2]) : 0;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 9;
  graft::context<graft::cpu> context({.threads = threads});
  graft::transformer_shape shape = quick_shape(std::max<index_t>(256, length));
  std::printf("%s, %d threads, width %lld, %lld blocks, %lld positions of context\n", context.device_name().c_str(),
              context.threads(), static_cast<long long>(shape.width), static_cast<long long>(shape.blocks),
              static_cast<long long>(length));
  measure<graft::dense_transformer<wide>>("dense", context, shape, length, rounds);
  measure<graft::dense_transformer<narrow>>("dense", context, shape, length, rounds);
  shape.experts = 4;
  measure<mixture_of<wide>>("mixture", context, shape, length, rounds);
  measure<mixture_of<narrow>>("mixture", context, shape, length, rounds);
  return 0;
}
