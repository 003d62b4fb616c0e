// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The parameters of one layer in double precision, with memory, and the check of a layer's backward pass against
// central differences of its forward pass: all of its weights and its input.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/core/parameter_tree.hpp>
#include <graft/layers/compute.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"

namespace graft::test {

using exact = compute<fp64, cpu>;

template <template <class> class Parameters>
struct owned_layer {
  Parameters<parameter_spec> specs;
  parameter_layout layout;
  std::vector<double> values, gradients;

  // Matrices are normal with this deviation, vectors are around 1.
  explicit owned_layer(const Parameters<parameter_spec>& declaration, std::uint64_t seed = 1, double deviation = 0.5)
      : specs(declaration),
        layout(make_layout(specs)),
        values(static_cast<std::size_t>(layout.size)),
        gradients(values.size()) {
    const random_source draw{seed, random_stream::data};
    for (std::size_t i = 0; i < layout.tensors.size(); ++i) {
      const tensor_entry& entry = layout.tensors[i];
      for (index_t j = 0; j < entry.size(); ++j)
        values[static_cast<std::size_t>(entry.offset + j)] =
            (entry.columns == 0 ? 1 : 0) + deviation * draw.normal(i, static_cast<std::uint64_t>(j));
    }
  }

  Parameters<exact::weight> weights() {
    return bind_parameters<Parameters<exact::weight>>(specs, vector_view<double>(values.data(), layout.size));
  }
  Parameters<exact::gradient> gradient_views() {
    return bind_parameters<Parameters<exact::gradient>>(specs, vector_view<double>(gradients.data(), layout.size));
  }
  double* tensor_values(const std::string& name) { return values.data() + find(name).offset; }
  double* tensor_gradients(const std::string& name) { return gradients.data() + find(name).offset; }
  const tensor_entry& find(const std::string& name) const {
    const tensor_entry* entry = layout.find(name);
    GRAFT_CHECK(entry != nullptr, "test: no tensor ", name);
    return *entry;
  }
  std::string element_name(std::size_t i) const {
    for (const tensor_entry& entry : layout.tensors)
      if (static_cast<index_t>(i) >= entry.offset && static_cast<index_t>(i) < entry.offset + entry.size())
        return entry.name + "[" + std::to_string(static_cast<index_t>(i) - entry.offset) + "]";
    return "padding[" + std::to_string(i) + "]";
  }
};

// forward(weights, x, out) -> saved; extra(saved): what the layer adds to the loss beside its output;
// backward(weights, gradients, saved, x, d_x, d_out). The loss is sum(probe * out) + extra. "" or a sentence.
template <template <class> class Parameters, class Forward, class Extra, class Backward>
std::string layer_mismatch(context<cpu>& ctx, owned_layer<Parameters>& layer, tensor<double>& x, const Forward& forward,
                           const Extra& extra, const Backward& backward) {
  const tensor<double> probe = tensor<double>::random(x.rows, x.columns, 77, 0.25);
  const auto loss = [&] {
    workspace_scope scope(ctx);
    tensor<double> out(x.rows, x.columns, 1e300);  // must be replaced
    const auto saved = forward(layer.weights(), x.matrix(), out.matrix());
    double sum = extra(saved);
    for (std::size_t i = 0; i < out.values.size(); ++i) sum += probe.values[i] * out.values[i];
    return sum;
  };
  tensor<double> d_x(x.rows, x.columns, 1e300);
  // Weight gradients are added: what was there before is taken off again.
  std::fill(layer.gradients.begin(), layer.gradients.end(), 0.5);
  {
    workspace_scope scope(ctx);
    tensor<double> out(x.rows, x.columns);
    const auto saved = forward(layer.weights(), x.matrix(), out.matrix());
    backward(layer.weights(), layer.gradient_views(), saved, x.matrix(), d_x.matrix(), probe.matrix());
  }
  for (double& g : layer.gradients) g -= 0.5;
  gradient_options options;
  options.name = [&](std::size_t i) { return layer.element_name(i); };
  std::string message = gradient_mismatch(loss, layer.values, layer.gradients, options);
  if (message.empty()) message = gradient_mismatch(loss, x.values, d_x.values);
  return message;
}

}  // namespace graft::test
