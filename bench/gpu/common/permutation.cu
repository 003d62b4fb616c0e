// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// What surrounds the experts' products: the plan (a counting sort), rows by expert, their weighted sum, and the
// gradients of both.

#include <memory>

#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/rows.cuh>
#include <graft/backend/cuda/scan_sort.cuh>
#include <graft/ops/permutation.hpp>

#include "common/measure.cuh"
#include "shapes.hpp"

namespace bench {
namespace {

constexpr index_t slots = 8;

// 8 different experts for each token: an odd stride from a random start. Requires: E is a power of two, at least 8.
struct choice_element {
  graft::vector_view<std::int32_t, graft::device_space> selected;
  index_t experts;
  std::uint64_t seed;
  GRAFT_HOST_DEVICE void operator()(index_t slot) const {
    const graft::random_source random{seed, graft::random_stream::data};
    const auto words = random.words(1, static_cast<std::uint64_t>(slot / slots));
    const auto start = static_cast<index_t>(words.word[0]), stride = static_cast<index_t>(words.word[1] | 1u);
    selected[slot] = static_cast<std::int32_t>((start + slot % slots * stride) % experts);
  }
};

class permutation_run {
 public:
  permutation_run(device_context& context, const permutation_case& c, int versions)
      : context_(context),
        case_(c),
        x_(random_buffer<bfloat16>(context, c.tokens * c.width, 1)),
        d_out_(random_buffer<bfloat16>(context, c.tokens * c.width, 2)),
        out_(c.tokens * c.width),
        d_x_(c.tokens * c.width),
        rows_(slots * c.tokens * c.width),
        d_rows_(slots * c.tokens * c.width),
        weights_(random_buffer<float>(context, slots * c.tokens, 3)),
        d_weights_(slots * c.tokens) {
    for (int v = 0; v < versions; ++v) {
      selected_.emplace_back(slots * c.tokens);
      launch_elements(context, slots * c.tokens,
                      choice_element{selected_.back().view(), c.experts, static_cast<std::uint64_t>(v)});
    }
  }

  void enter(int repetition) {
    scope_.reset();
    scope_ = std::make_unique<graft::workspace_scope<device_context>>(context_);
    version_ = static_cast<std::size_t>(repetition) % selected_.size();
  }
  void plan() { plan_ = make_dispatch_plan(context_, selected(), case_.experts, slots); }
  void gather() { graft::gather_tokens<device_context, bfloat16>(context_, rows(), x(), plan_); }
  void combine() {
    graft::combine_rows<device_context, bfloat16>(context_, out(), rows(), weights(), plan_, graft::accumulate::no);
  }
  void combine_backward() {
    graft::combine_rows_backward<device_context, bfloat16>(context_, d_rows(), d_weights(), d_out(), rows(), weights(),
                                                           plan_);
  }
  void gather_backward() {
    graft::combine_rows<device_context, bfloat16>(context_, d_x(), d_rows(), {}, plan_, graft::accumulate::no);
  }
  void leave() { scope_.reset(); }

  graft::vector_view<const std::int32_t, graft::device_space> selected() const { return selected_[version_].view(); }
  device_matrix<bfloat16> x() const { return x_.view(case_.tokens, case_.width); }
  device_matrix<bfloat16> out() const { return out_.view(case_.tokens, case_.width); }
  device_matrix<bfloat16> d_out() const { return d_out_.view(case_.tokens, case_.width); }
  device_matrix<bfloat16> d_x() const { return d_x_.view(case_.tokens, case_.width); }
  device_matrix<bfloat16> rows() const { return rows_.view(slots * case_.tokens, case_.width); }
  device_matrix<bfloat16> d_rows() const { return d_rows_.view(slots * case_.tokens, case_.width); }
  device_matrix<float> weights() const { return weights_.view(case_.tokens, slots); }
  device_matrix<float> d_weights() const { return d_weights_.view(case_.tokens, slots); }

 private:
  device_context& context_;
  permutation_case case_;
  on_device<bfloat16> x_, d_out_, out_, d_x_, rows_, d_rows_;
  on_device<float> weights_, d_weights_;
  std::vector<on_device<std::int32_t>> selected_;
  graft::dispatch_plan<graft::device_space> plan_;
  std::size_t version_ = 0;
  std::unique_ptr<graft::workspace_scope<device_context>> scope_;
};

}  // namespace

void report_permutation(const report_options& options) {
  device_context context;
  stopwatch watch(context, options);
  for (const permutation_case& c : permutation_cases(options.small)) {
    attempt("permutation", c.json(), [&] {
      permutation_run run(context, c, 3);
      const auto enter = [&](int repetition) { run.enter(repetition); };
      const double t = static_cast<double>(c.tokens), d = static_cast<double>(c.width), k = slots;
      // Each by itself, with nothing of its operands in the cache.
      const auto measure = [&](const char* name, const work& w, const auto& stage) {
        print_line(timed_line("permutation", name, c.json(), watch(enter, stage).back(), w, options.card));
      };
      measure("plan", plan_work(t, k), [&] { run.plan(); });
      const auto after_plan = [&](const char* name, const work& w, const auto& stage) {
        const auto times = watch(
            enter, [&] { run.plan(); }, [&] { fill_zero(context, run.d_weights()); }, stage);
        print_line(timed_line("permutation", name, c.json(), times[2], w, options.card));
      };
      after_plan("gather", gather_work(t, k, d), [&] { run.gather(); });
      after_plan("combine", combine_work(t, k, d), [&] { run.combine(); });
      after_plan("combine backward", combine_backward_work(t, k, d), [&] { run.combine_backward(); });
      after_plan("gather backward", combine_work(t, k, d), [&] { run.gather_backward(); });
      run.leave();
    });
  }
  if (options.data.empty()) return;
  int number = 0;
  for (const permutation_case& c : permutation_cases(true)) {
    permutation_run run(context, c, 1);
    run.enter(0);
    run.plan();
    run.gather();
    run.combine();
    run.combine_backward();
    run.gather_backward();
    const result_files files(context, options.data, "permutation", number++);
    files.write("x", run.x());
    files.write("selected", run.selected());
    files.write("weights", run.weights());
    files.write("d_out", run.d_out());
    files.write("rows", run.rows());
    files.write("out", run.out());
    files.write("d_rows", run.d_rows());
    files.write("d_weights", run.d_weights());
    files.write("d_x", run.d_x());
    run.leave();
  }
}

}  // namespace bench
