// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Gradients of a whole model against central differences, elements of every tensor.

#include <string>
#include <vector>

#include "gradient_check.hpp"
#include "model_check.hpp"

namespace graft::test {

// token_scale * sum of cross entropies + auxiliary_scale * balancers' losses against what forward_backward adds to the
// gradients.
template <class Model>
std::string model_mismatch(Model& model, index_t groups = 1) {
  const token_batch batch(2, 6, model.shape().vocabulary);
  const pass_options options{.token_scale = 1.0 / static_cast<double>(batch.target_count()),
                             .auxiliary_scale = 0.75,
                             .balance_groups = groups};
  model.parameters().set_trainable({});
  const auto gradients = model.parameters().gradients();
  const auto run = [&] {
    model.clear_metrics();
    model.forward_backward(batch.input(), batch.target(), options);
    const pass_metrics metrics = model.metrics();
    return options.token_scale * metrics.loss_sum + options.auxiliary_scale * metrics.auxiliary_sum;
  };
  for (index_t i = 0; i < gradients.extent(0); ++i) gradients[i] = 0.5;  // gradients are added
  run();

  // Up to eight elements of every tensor, spread over it.
  std::vector<double> x, wanted;
  std::vector<index_t> places;
  std::vector<std::string> names;
  for (const tensor_entry& entry : model.layout().tensors) {
    const index_t step = entry.size() / 8 + 1;
    for (index_t i = 0; i < entry.size(); i += step) {
      places.push_back(entry.offset + i);
      names.push_back(entry.name + "[" + std::to_string(i) + "]");
      x.push_back(model.parameters().master()[places.back()]);
      wanted.push_back(gradients[places.back()] - 0.5);
    }
  }
  gradient_options check;
  check.name = [&](std::size_t i) { return names[i]; };
  return gradient_mismatch(
      [&] {
        for (std::size_t i = 0; i < x.size(); ++i) model.parameters().master()[places[i]] = x[i];
        return run();
      },
      x, wanted, check);
}

}  // namespace graft::test
