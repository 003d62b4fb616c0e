// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The mixture layer with OLMoE's router (softmax, then the 8 largest, not renormalised) and without a balancing loss,
// as the peers' block has none: forward, and backward with the gradients of x, gate and experts.

#include <memory>

#include <graft/backend/cuda/cuda.cuh>
#include <graft/layers/block.hpp>
#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/softmax_top_k.hpp>

#include "common/measure.cuh"
#include "shapes.hpp"

namespace bench {
namespace {

using mixture_type = graft::mixture<graft::softmax_top_k<8>, graft::no_balancer, graft::routed>;

// Rows of the gate: N(0, 1/D), so that logits are N(0, 1), but for column 0, which holds the logarithm of an expert's
// popularity. Column 0 of every token is 1.
struct gate_element {
  device_matrix<bfloat16> gate;
  bool zipf;
  GRAFT_HOST_DEVICE void operator()(index_t i) const {
    const index_t experts = gate.extent(0), width = gate.extent(1), e = i / width;
    const graft::random_source random{7, graft::random_stream::data};
    float value = static_cast<float>(random.normal(0, static_cast<std::uint64_t>(i)) / ::sqrt(double(width)));
    if (i % width == 0) value = zipf ? -::logf(1.0f + static_cast<float>(7 * e % experts)) : 0.0f;
    gate.data[i] = bfloat16(value);
  }
};
struct first_column_element {
  device_matrix<bfloat16> x;
  GRAFT_HOST_DEVICE void operator()(index_t token) const { x(token, index_t{0}) = bfloat16(1.0f); }
};

// One layer. Tokens come in several versions, so that repetitions route differently.
class moe_layer {
 public:
  moe_layer(device_context& context, const moe_case& c, int versions)
      : context_(context), case_(c), shape_{.width = c.width, .hidden = c.hidden, .experts = c.experts} {
    const auto specs = policies_.specs(shape_);
    const index_t size = graft::make_layout(specs).size;
    weight_memory_ = random_buffer<bfloat16>(context, size, 1, 0.02);
    gradient_memory_ = on_device<float>(size);
    weights = graft::bind_parameters<mixture_type::parameters<numbers::weight>>(specs, weight_memory_.view());
    gradients = graft::bind_parameters<mixture_type::parameters<numbers::gradient>>(specs, gradient_memory_.view());
    launch_elements(context, weights.gate.matrix().size(),
                    gate_element{weights.gate.matrix(), std::string(c.routing) == "zipf"});
    for (int v = 0; v < versions; ++v) {
      x_.push_back(random_buffer<bfloat16>(context, c.tokens * c.width, 10 + static_cast<std::uint64_t>(v)));
      launch_elements(context, c.tokens, first_column_element{x_.back().view(c.tokens, c.width)});
    }
    d_out_ = random_buffer<bfloat16>(context, c.tokens * c.width, 2);
    out_ = on_device<bfloat16>(c.tokens * c.width);
    d_x_ = on_device<bfloat16>(c.tokens * c.width);
    pass_.experts = c.experts;
    pass_.positions = c.tokens;
    pass_.at.training = true;
  }

  void enter(int repetition) {
    scope_.reset();
    scope_ = std::make_unique<graft::workspace_scope<device_context>>(context_);
    version_ = static_cast<std::size_t>(repetition) % x_.size();
  }
  void forward() { saved_ = policies_.forward<numbers>(context_, weights, pass_, x(), out()); }
  void backward() {
    policies_.backward<numbers>(context_, weights, gradients, pass_, saved_, x(), d_x(), d_out(), 1.0);
  }
  void leave() { scope_.reset(); }

  device_matrix<bfloat16> x() const { return x_[version_].view(case_.tokens, case_.width); }
  device_matrix<bfloat16> out() const { return out_.view(case_.tokens, case_.width); }
  device_matrix<bfloat16> d_x() const { return d_x_.view(case_.tokens, case_.width); }
  device_matrix<bfloat16> d_out() const { return d_out_.view(case_.tokens, case_.width); }
  const auto& saved() const { return saved_; }

  mixture_type::parameters<numbers::weight> weights;
  mixture_type::parameters<numbers::gradient> gradients;

 private:
  device_context& context_;
  moe_case case_;
  graft::transformer_shape shape_;
  mixture_type policies_{};
  on_device<bfloat16> weight_memory_, d_out_, out_, d_x_;
  on_device<float> gradient_memory_;
  std::vector<on_device<bfloat16>> x_;
  std::size_t version_ = 0;
  graft::routing_pass<float, graft::device_space> pass_;
  mixture_type::saved<numbers> saved_;
  std::unique_ptr<graft::workspace_scope<device_context>> scope_;
};

}  // namespace

void report_moe(const report_options& options) {
  for (const moe_case& c : moe_cases(options.small)) {
    attempt("moe", c.json(), [&] {
      device_context context;
      stopwatch watch(context, options);
      moe_layer layer(context, c, 3);
      const auto times =
          watch([&](int repetition) { layer.enter(repetition); }, [&] { layer.forward(); }, [&] { layer.backward(); });
      layer.leave();
      const moe_sizes sizes{static_cast<double>(c.tokens), static_cast<double>(c.width), static_cast<double>(c.hidden),
                            static_cast<double>(c.experts), 8};
      const work forward = moe_forward_work(sizes), backward = moe_backward_work(sizes);
      print_line(timed_line("moe", "forward", c.json(), times[0], forward, options.card));
      print_line(timed_line("moe", "backward", c.json(), times[1], backward, options.card));
      // One pass after the other: their floors add up.
      const double floor = 1e3 * (floor_seconds(forward, options.card) + floor_seconds(backward, options.card));
      print_line(json_object()
                     .add("part", "moe")
                     .add("name", "forward and backward")
                     .add("shape", c.json())
                     .add("who", "graft")
                     .add("ms", times[2])
                     .add("floor_ms", floor)
                     .add("score", floor / times[2])
                     .add("tflops", (forward.flops + backward.flops) / times[2] * 1e-9)
                     .add("workspace_gb", static_cast<double>(context.workspace().peak_bytes()) * 1e-9));
    });
  }
  if (options.data.empty()) return;
  int number = 0;
  for (const moe_case& c : moe_cases(true)) {
    device_context context;
    moe_layer layer(context, c, 1);
    layer.enter(0);
    layer.forward();
    const result_files files(context, options.data, "moe", number++);
    files.write("x", layer.x());
    files.write("gate", layer.weights.gate.matrix());
    files.write("w13", layer.weights.experts.w13.stacked());
    files.write("w2", layer.weights.experts.w2.stacked());
    files.write("d_out", layer.d_out());
    files.write("out", layer.out());
    files.write("selected", layer.saved().selected);
    files.write("weights", layer.saved().weights);
    layer.backward();
    files.write("d_x", layer.d_x());
    files.write("d_gate", layer.gradients.gate.matrix());
    files.write("d_w13", layer.gradients.experts.w13.stacked());
    files.write("d_w2", layer.gradients.experts.w2.stacked());
    layer.leave();
  }
}

}  // namespace bench
