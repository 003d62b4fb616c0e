// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// One line of a cost sheet, and how it comes from a model: what a pass computes, what its memory is.

#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

#include <graft/analysis/cost_activations.hpp>
#include <graft/io/json.hpp>

namespace graft {

struct cost_options {
  index_t sequences = 1;                    // B of a pass
  index_t positions = 0;                    // S; 0: 4096, or what the models take where that is less
  std::string precision = "bf16";           // or "fp32"
  index_t models = 4;                       // N where one file stands for the seed and all its branches
  index_t experts_per_token = 0;            // K of a mixture; 0: the method's own
  index_t stitches = 0;                     // K of bts; 0: the topology's own number, 4 where there are as many blocks
  std::string topology = "hub_and_spokes";  // of bts
  index_t rank = 16;                        // of lora and adapters
};

// One line of the sheet. Parameters and FLOPs are exact integers where a token's experts are.
struct cost_row {
  std::string name, text;
  double total = 0, active = 0, trained = 0;  // parameters; active: of one token. trained is 0 where nothing is
  double forward = 0, train = 0;              // FLOPs of a token, two for each multiply-add
  double weights = 0, master_weights = 0;     // bytes: as products read them; the copy in fp32 that the optimizer moves
  double gradients = 0, optimizer = 0;        // bytes; optimizer: two moments
  double activations = 0;                     // bytes of one pass
  std::vector<std::string> notes;

  double bytes() const { return weights + master_weights + gradients + optimizer + activations; }
};

namespace detail {

// Multiply-adds of a token. through: those that gradients to activations go through; trained: those whose weight has a
// gradient. FLOPs forward: 2 (products + scores); of a training step: 2 through + 4 scores_through + 2 trained more,
// which is three times the forward pass where everything is trained.
struct token_work {
  double products = 0, scores = 0;
  double through = 0, scores_through = 0, trained = 0;

  double forward() const { return 2.0 * (products + scores); }
  double train() const { return forward() + 2.0 * through + 4.0 * scores_through + 2.0 * trained; }
};

inline counted_pass pass_of(const cost_options& options, index_t positions) {
  const bool narrow = options.precision == "bf16";
  GRAFT_CHECK(narrow || options.precision == "fp32", "cost_sheet: expected a precision of bf16 or fp32, got ",
              in_quotes(options.precision));
  return {options.sequences, positions, narrow ? 2.0 : 4.0, 4.0};
}

// in_arena: parameters of the stores that have gradients. A store that is trained in part holds gradients and moments
// of all its parameters (parameter_store, adamw); a model that is only read has none.
inline void set_memory(cost_row& row, double in_arena, const counted_pass& pass) {
  row.weights = pass.storage * row.total;
  row.master_weights = pass.storage < pass.master ? pass.master * row.total : 0;
  row.gradients = pass.master * in_arena;
  row.optimizer = 2.0 * pass.master * in_arena;
}

inline double width_of(const counted_model& model) { return static_cast<double>(model.shape.width); }
inline double blocks_of(const counted_model& model) { return static_cast<double>(model.shape.blocks); }
inline slots_rule own_slots(const counted_model& model) {
  return model.slots.value_or(slots_rule{static_cast<double>(model.experts_per_token)});
}

// Parameters that a balancer moves and no gradient does.
inline double state_count(const counted_model& model) {
  if (!model.selection_bias) return 0;
  return static_cast<double>(model.shape.experts) *
         static_cast<double>(std::count(model.routed_blocks.begin(), model.routed_blocks.end(), true));
}

// A model of which everything is trained.
inline cost_row trained_model(const counted_model& model, const slots_rule& rule, const counted_pass& pass) {
  const role_counts total = count_by_role(model), active = count_by_role(model, rule);
  cost_row row;
  row.total = total.sum();
  row.active = active.sum();
  row.trained = row.total - state_count(model);
  const double products = products_per_token(model, active), scores = scores_per_token(model, pass.positions);
  const token_work work{products, scores, products, scores, products};
  row.forward = work.forward();
  row.train = work.train();
  set_memory(row, row.total, pass);
  row.activations = training_activations(model, rule, pass);
  row.notes = model.notes;
  return row;
}

// A model of which `trained` parameters are, `trained_products` multiply-adds of a token with them; the gradient goes
// through all of it, and its store has gradients and moments of everything.
inline cost_row partly_trained(const counted_model& model, const slots_rule& rule, const counted_pass& pass,
                               double trained, double trained_products) {
  cost_row row = trained_model(model, rule, pass);
  const double scores = scores_per_token(model, pass.positions), products = row.forward / 2.0 - scores;
  row.trained = trained;
  row.train = token_work{products, scores, products, scores, trained_products}.train();
  return row;
}

// The same, trained by role.
inline cost_row trained_roles(const counted_model& model, const slots_rule& rule, const counted_pass& pass,
                              std::initializer_list<role> roles) {
  const role_counts total = count_by_role(model), active = count_by_role(model, rule);
  double trained = 0, products = 0;
  for (const role kind : roles) trained += total[kind], products += active[kind];
  return partly_trained(model, rule, pass, trained, products);
}

// A model that nothing trains: it is only read.
inline cost_row untrained(cost_row row, double activations, const counted_pass& pass) {
  row.trained = 0;
  row.train = 0;
  set_memory(row, 0, pass);
  row.activations = activations;
  return row;
}

}  // namespace detail

}  // namespace graft
