// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The names that programs write down, in one page: declarations, and in comments what cannot be declared without its
// header (aliases, functions, templates with defaults). Definitions stand in the headers named at the right.

#include <graft/core/host_device.hpp>

namespace graft {

// core: compute<Precision, Backend> (core/precision.hpp)
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
class buffer;              // backend/buffer.hpp
struct self_communicator;  // backend/communicator.hpp
class thread_group;        // backend/thread_communicator.hpp
class thread_communicator;
class socket_communicator;  // backend/socket_communicator.hpp
class nccl_communicator;    // backend/cuda/communicator.cuh
struct launch_ranks;        // backend/ranks.hpp
template <class T>
class step_value;  // core/step_value.hpp

// policies: Router. row_router<Score, Select, Weigh, Gate> (policies/router/row_router.hpp) makes one of three row
// functions.
struct router_spec;  // policies/router/router.hpp
template <class M>
struct routing_token;  // policies/router/routing_pass.hpp
template <class M, class Space>
struct routing_pass;
template <int K>
struct top_k;  // each in a header of its name
template <int K>
struct softmax_top_k;
template <int K>
struct renormalised_top_k;
struct switch_top_1;
template <int E>
struct soft;
template <int E>
struct sample_top_1;
template <int K>
struct sigmoid_top_k;
template <int K>
struct group_limited_top_k;
template <int K>
struct null_top_k;
template <int K>
struct flex_olmo;
template <int K>
struct context_top_k;  // policies/router/context_router.hpp
template <int K>
struct ermoe;
template <int K>
struct hash_router;
template <int E>
struct expert_choice;

// policies: Gate. context_gate and sequence_context_gate are aliases.
struct linear_gate;  // policies/gate/
struct owner_gate;
struct eigen_gate;

// policies: Balancer. all<...> (policies/balancer/all.hpp) is several.
struct balancer_spec;  // policies/balancer/balancer.hpp
struct no_balancer;
struct switch_loss;  // each in a header of its name
struct btx_loss;
struct sequence_loss;
struct global_batch_loss;
struct z_loss;
struct loss_free_bias;
struct dirichlet_prior;

// policies: ExpertLayout. capacity<Base, Rule>, pad_to_capacity<Base>, shared_routed<Mode, Base>, with_experts<Form,
// Base> (adapted, lora, mixed_width) are in headers of their names.
struct expert_layout_spec;  // policies/expert_layout/expert_layout.hpp
template <index_t Experts>
struct routed_experts;  // policies/expert_layout/routed.hpp

// policies: StitchTopology
struct stitch_plan;     // policies/stitch_topology/stitch_plan.hpp
struct hub_and_spokes;  // each in a header of its name
struct into_hub;
struct stitch_at_end;
struct stitched_pair;
struct all_to_all;
class any_topology;

// layers: mixture<Router, Balancer, ExpertLayout>, smear_mixture, peer_mixture, any_mixture<Compute>,
// with_attention_experts<Mixture, attention_experts>
struct no_mixture;         // layers/block.hpp
struct attention_experts;  // layers/attention_experts.hpp

// models: dense_transformer<Compute>, moe_transformer<Router, Balancer, ExpertLayout, Compute>,
// stitched_transformer<Topology, Compute, Member>, sparse_stitched<Stitched>, forest<Posterior, Compute, Member>,
// routed_forest<Compute, Member>, clustered_forest() (io/clustered_forest.hpp)
struct layer_load;  // models/layer_load.hpp
template <class Mixture, class Compute>
class transformer;        // models/transformer.hpp
struct stitch_options;    // models/stitched_transformer.hpp
struct prefix_posterior;  // models/forest_posterior.hpp
struct last_token_posterior;
struct fixed_weights;
template <class Compute>
class expert_router;        // models/expert_router.hpp
struct generation_options;  // models/generation.hpp

// io
struct model_info;      // io/model_directory.hpp
struct model_card;      // io/graft_json.hpp
struct domain_source;   // io/domain.hpp
struct corpus;          // io/corpus.hpp
class token_file;       // io/token_file.hpp
struct assembly_card;   // io/assembly.hpp
struct byte_tokenizer;  // io/byte_tokenizer.hpp

// mix: soup_recipe, btx_recipe, bam_recipe, upcycle_recipe, flex_olmo_recipe, mix(), mix_directories(); planners of
// experts in mix/expert_plan.hpp; trainable_after_mix() and except_experts() in mix/trainable.hpp; join_experts() and
// remove_experts() in mix/edit_experts.hpp
struct branch_directory;       // mix/model_directories.hpp
struct directory_mix_options;
struct recipe;  // mix/recipe.hpp
template <class M>
struct mix_source;  // mix/mix.hpp

// train
struct adamw_options;     // train/adamw.hpp
struct training_options;  // train/trainer.hpp
struct step_report;
template <class Model, class Communicator>
class trainer;
class domain_batches;  // train/domain_batches.hpp
struct run_options;    // train/run.hpp

// analysis
struct evaluation;  // analysis/evaluate.hpp

}  // namespace graft
