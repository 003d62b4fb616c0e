// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// What it costs to run several models as one, on the CPU: the time of a stitched model and of a forest against the sum
// of its members' times for the same text, in bf16. Read: the losses of a batch of sequences. Written: one token after
// a prompt, with a cache. Members have the size of the "quick" preset; each round times the assembly and its members in
// turn, and the median of the rounds' ratios is printed.
//
//   assemblies [members = 4] [threads = 0] [rounds = 15]

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/models/forest.hpp>
#include <graft/models/generation.hpp>
#include <graft/models/stitched_transformer.hpp>
#include <graft/policies/stitch_topology/all_topologies.hpp>

#include "common/measuring.hpp"

namespace {

using graft::index_t;
using namespace bench;
using numbers = graft::compute<graft::bf16, graft::cpu>;
using member_type = graft::dense_transformer<numbers>;

constexpr index_t sequences = 16, positions = 256, prompt = 128;

// A model with a text to read and a text to go on with.
template <class Model>
class workload {
 public:
  explicit workload(Model& model) : model_(&model), cache_(model.make_cache(positions)) {
    const index_t count = sequences * positions;
    for (index_t i = 0; i <= count; ++i) tokens_.push_back(static_cast<std::int32_t>((i * i + i / 7) % 251));
    losses_ = graft::buffer<float, graft::host_space>(count);
    logits_ = graft::buffer<float, graft::host_space>(model.shape().vocabulary);
  }
  void read() {
    model_->token_losses(losses_.view(), graft::matrix_view<const std::int32_t>(tokens_.data(), sequences, positions),
                         graft::matrix_view<const std::int32_t>(tokens_.data() + 1, sequences, positions));
  }
  void begin() {
    cache_ = model_->make_cache(positions);
    extend(0, prompt);
  }
  void write(index_t at) { extend(at, at + 1); }

 private:
  void extend(index_t begin, index_t end) {
    model_->extend(cache_, graft::vector_view<const std::int32_t>(tokens_.data() + begin, end - begin), logits_.view());
  }

  Model* model_;
  std::vector<std::int32_t> tokens_;
  graft::buffer<float, graft::host_space> losses_, logits_;
  typename Model::cache_type cache_;
};

// Seconds that all of some models take for the same text. Written: each model a token, then each the next, as in an
// assembly, where the weights of one model push those of another out of the caches.
struct seconds {
  double read, written;
};
template <class Models>
seconds time_of(Models& models) {
  constexpr int tokens = 24;
  seconds result{};
  result.read = seconds_of(1, [&] {
    for (auto& model : models) model.read();
  });
  for (auto& model : models) model.begin();
  index_t at = prompt;
  result.written = seconds_of(tokens, [&] {
    for (auto& model : models) model.write(at);
    ++at;
  });
  return result;
}

template <class Model>
void measure(const std::string& name, Model& model, std::vector<workload<member_type>>& members, int rounds) {
  std::vector<workload<Model>> whole;
  whole.emplace_back(model);
  std::vector<double> reading, writing, read_rate, written_rate;
  for (int round = 0; round <= rounds; ++round) {
    const seconds together = time_of(whole), apart = time_of(members);
    if (round == 0) continue;
    reading.push_back(together.read / apart.read);
    writing.push_back(together.written / apart.written);
    read_rate.push_back(static_cast<double>(sequences * positions) / together.read);
    written_rate.push_back(1 / together.written);
  }
  std::printf("%-24s read %5.3f of the sum (%7.0f tokens/s)   written %5.3f of the sum (%6.0f tokens/s)\n",
              name.c_str(), median(reading), median(read_rate), median(writing), median(written_rate));
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 4;
  const int threads = argc > 2 ? std::atoi(argv[2]) : 0;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 15;
  graft::context<graft::cpu> context({.threads = threads});
  const graft::transformer_shape shape = quick_shape(positions);
  std::printf("%s, %d threads, %d members of width %lld, %lld blocks\n", context.device_name().c_str(),
              context.threads(), count, static_cast<long long>(shape.width), static_cast<long long>(shape.blocks));
  std::vector<std::shared_ptr<member_type>> members;
  std::vector<workload<member_type>> apart;
  for (int i = 0; i < count; ++i) {
    members.push_back(std::make_shared<member_type>(context, shape));
    members.back()->initialize(static_cast<std::uint64_t>(i + 1));
    apart.emplace_back(*members.back());
  }
  graft::forest<graft::prefix_posterior, numbers> forest(members);
  measure("forest", forest, apart, rounds);
  for (const index_t stitches : {1, 2, 4}) {
    graft::stitched_transformer<graft::hub_and_spokes, numbers> stitched(context, members, {}, {.stitches = stitches});
    stitched.initialize(1);
    measure("stitched, " + std::to_string(stitches) + (stitches == 1 ? " stitch" : " stitches"), stitched, apart,
            rounds);
  }
  return 0;
}
