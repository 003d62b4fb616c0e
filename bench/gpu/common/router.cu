// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// OLMoE's router from logits to experts, weights, the load of the experts and the Switch and z losses; and back.

#include <memory>

#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/rows.cuh>
#include <graft/layers/routing.hpp>
#include <graft/policies/balancer/all.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/balancer/z_loss.hpp>
#include <graft/policies/router/softmax_top_k.hpp>

#include "common/measure.cuh"
#include "shapes.hpp"

namespace bench {
namespace {

using router_type = graft::softmax_top_k<8>;
using losses_type = graft::all<graft::switch_loss, graft::z_loss>;

class router_run {
 public:
  router_run(device_context& context, const router_case& c, int versions)
      : context_(context),
        case_(c),
        selected_(c.tokens * 8),
        weights_(c.tokens * 8),
        d_weights_(random_buffer<float>(context, c.tokens * 8, 2)),
        d_logits_(c.tokens * c.experts),
        load_(graft::routing_load{c.experts, 8}.size()),
        loss_(1) {
    for (int v = 0; v < versions; ++v)
      logits_.push_back(random_buffer<float>(context, c.tokens * c.experts, 10 + static_cast<std::uint64_t>(v)));
    pass_.experts = c.experts;
    pass_.positions = c.tokens;
    pass_.at.training = true;
    pass_.load = load_.view();
    pass_.loss = loss_.view();
  }

  void enter(int repetition) {
    scope_.reset();
    scope_ = std::make_unique<graft::workspace_scope<device_context>>(context_);
    version_ = static_cast<std::size_t>(repetition) % logits_.size();
  }
  void forward() {
    statistics_ = route_forward(context_, router_type{}, losses_type{}, pass_, selected(), weights(),
                                device_matrix<const float>(logits()));
  }
  void backward() {
    route_backward(context_, router_type{}, losses_type{}, pass_, d_logits(), statistics_,
                   device_matrix<const float>(logits()), selected(), device_matrix<const float>(weights()), d_weights(),
                   1.0);
  }
  void leave() { scope_.reset(); }

  device_matrix<float> logits() const { return logits_[version_].view(case_.tokens, case_.experts); }
  device_matrix<std::int32_t> selected() const { return selected_.view(case_.tokens, 8); }
  device_matrix<float> weights() const { return weights_.view(case_.tokens, 8); }
  device_matrix<float> d_weights() const { return d_weights_.view(case_.tokens, 8); }
  device_matrix<float> d_logits() const { return d_logits_.view(case_.tokens, case_.experts); }
  const on_device<float>& loss() const { return loss_; }

 private:
  device_context& context_;
  router_case case_;
  std::vector<on_device<float>> logits_;
  on_device<std::int32_t> selected_;
  on_device<float> weights_, d_weights_, d_logits_, load_, loss_;
  graft::routing_pass<float, graft::device_space> pass_;
  graft::routing_statistics<float, graft::device_space> statistics_;
  std::size_t version_ = 0;
  std::unique_ptr<graft::workspace_scope<device_context>> scope_;
};

}  // namespace

void report_router(const report_options& options) {
  device_context context;
  stopwatch watch(context, options);
  for (const router_case& c : router_cases(options.small)) {
    attempt("router", c.json(), [&] {
      router_run run(context, c, 3);
      const auto times =
          watch([&](int repetition) { run.enter(repetition); }, [&] { run.forward(); }, [&] { run.backward(); });
      run.leave();
      const double t = static_cast<double>(c.tokens), e = static_cast<double>(c.experts);
      const work forward = router_forward_work(t, e, 8), backward = router_backward_work(t, e, 8);
      print_line(timed_line("router", "forward", c.json(), times[0], forward, options.card));
      print_line(timed_line("router", "backward", c.json(), times[1], backward, options.card));
      print_line(timed_line("router", "forward and backward", c.json(), times[2], forward + backward, options.card));
    });
  }
  if (options.data.empty()) return;
  int number = 0;
  for (const router_case& c : router_cases(true)) {
    router_run run(context, c, 1);
    run.enter(0);
    run.forward();
    run.backward();
    const result_files files(context, options.data, "router", number++);
    files.write("logits", run.logits());
    files.write("d_weights", run.d_weights());
    files.write("selected", run.selected());
    files.write("weights", run.weights());
    files.write("loss", run.loss().view());
    files.write("d_logits", run.d_logits());
    run.leave();
  }
}

}  // namespace bench
