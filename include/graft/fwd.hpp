// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Every public name that a program writes down, in one page. Definitions stand in the headers named at the right.

#include <graft/core/host_device.hpp>

namespace graft {

// core
struct error;     // core/error.hpp
struct bfloat16;  // core/dtype.hpp
struct fp64;      // core/precision.hpp
struct fp32;
struct bf16;
struct transformer_shape;  // core/transformer_shape.hpp
struct parameter_spec;     // core/parameter_spec.hpp
struct tensor_entry;       // core/parameter_tree.hpp
struct parameter_layout;
struct random_source;  // core/philox.hpp

// backend
struct cpu;  // backend/backend.hpp
struct cuda;
struct context_options;
template <class Backend>
class context;  // backend/cpu/context.hpp, backend/cuda/context.cuh
template <class T, class Space>
class buffer;  // backend/buffer.hpp

// policies: Router
struct router_spec;  // policies/router/router.hpp
template <class Score, class Select, class Weigh>
struct row_router;  // policies/router/row_router.hpp
template <int K>
struct top_k;        // policies/router/top_k.hpp
struct logit_score;  // policies/router/score.hpp
struct softmax_score;
template <int K>
struct select_top;             // policies/router/select.hpp
struct softmax_over_selected;  // policies/router/weigh.hpp
struct selected_score;

// policies: Balancer
struct balancer_spec;  // policies/balancer/balancer.hpp
struct no_balancer;
struct switch_loss;  // policies/balancer/switch_loss.hpp
struct z_loss;       // policies/balancer/z_loss.hpp

// policies: ExpertLayout
struct expert_layout_spec;  // policies/expert_layout/expert_layout.hpp
template <index_t Experts>
struct routed_experts;  // policies/expert_layout/routed.hpp

// models: dense_transformer<Compute>, moe_transformer<Router, Balancer, ExpertLayout, Compute>
template <class Mixture, class Compute>
class transformer;          // models/transformer.hpp
struct generation_options;  // models/generation.hpp

// io
struct model_info;      // io/model_directory.hpp
struct model_card;      // io/graft_json.hpp
struct domain_source;   // io/domain.hpp
struct corpus;          // io/corpus.hpp
class token_file;       // io/token_file.hpp
struct byte_tokenizer;  // io/byte_tokenizer.hpp

// mix: soup_recipe, btx_recipe, mix(), mix_directories()
struct recipe;  // mix/recipe.hpp
template <class M>
struct mix_source;  // mix/mix.hpp

// train
struct adamw_options;     // train/adamw.hpp
struct training_options;  // train/trainer.hpp
struct step_report;
template <class Model>
class trainer;
class domain_batches;  // train/domain_batches.hpp
struct run_options;    // train/run.hpp

// analysis
struct evaluation;  // analysis/evaluate.hpp

}  // namespace graft
