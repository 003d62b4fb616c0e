// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The work on assemblies: members are loaded as dense models, and the model that the card names is put together of
// them. One type of stitched model, whatever the topology, one of forests, whatever the posterior, one of forests by
// clusters of documents, and expert routing.

#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <graft/analysis/trace_gates.hpp>
#include <graft/io/clustered_forest.hpp>
#include <graft/io/document_clusters_file.hpp>
#include <graft/models/sparse_stitched.hpp>
#include <graft/train/fit_prior.hpp>

#include "common/assemblies.hpp"
#include "common/assembly_policies.hpp"
#include "common/model_tasks.hpp"

namespace examples {

namespace detail {

// The models of one assembly, and those that can be made of them.
template <class Compute>
class assembly_models {
 public:
  using context_type = typename Compute::context_type;
  using M = typename Compute::master;
  using member_type = graft::dense_transformer<Compute>;
  using stitched_type = graft::stitched_transformer<graft::any_topology, Compute>;
  using forest_type = graft::forest<any_posterior, Compute>;
  using routed_type = graft::routed_forest<Compute>;

  // Loads the members. Folders of info.card can be opened as they are.
  assembly_models(context_type& context, const graft::assembly_info& info) : context_(&context), info_(info) {
    for (std::size_t i = 0; i < info.members.size(); ++i) {
      const graft::model_info& member = info.members[i];
      GRAFT_CHECK(member.config.shape.experts == 0 && (!member.card || !member.card->attention), place(), ": member ",
                  graft::detail::in_quotes(info.card.members[i].name),
                  ": these programs are compiled for dense members, this one has experts");
      auto model = std::make_shared<member_type>(context, member.config.shape);
      std::vector<M> values(static_cast<std::size_t>(model->layout().size));
      graft::load_parameters(member.folder, model->layout(), values.data());
      set_parameters(*model, values);
      std::ostringstream text;
      text << ", member " << info.card.members[i].name << ' ' << std::hex
           << graft::hash_memory(values.data(), values.size() * sizeof(M));
      description_ += text.str();
      members_.push_back(std::move(model));
    }
  }

  std::string place() const { return (info_.folder / "graft.json").string(); }
  // What decides the run of an assembly beside its own parameters.
  std::string description() const {
    return ", " + info_.card.kind + ' ' + info_.card.policy.name + info_.card.policy.options.dump() + description_;
  }

  // Calls use(model) with the model that the card names; own parameters are not set.
  template <class Use>
  auto with_model(Use use) {
    if (info_.card.kind == "forest" && info_.card.policy.name == clusters_name) {
      const cluster_policy policy = cluster_policy_of(info_.card.policy, place());
      auto model = graft::clustered_forest<Compute>(
          members_,
          std::make_shared<graft::document_clusters>(graft::load_document_clusters(info_.folder / policy.file)),
          policy.posterior, policy.chunk);
      return use(model);
    }
    if (info_.card.kind == "forest") {
      forest_type model = forest();
      return use(model);
    }
    if (info_.card.kind == "stitched") {
      const stitch_policy policy = stitch_policy_of(info_.card.policy, place());
      if (policy.experts > 0) {
        stitched_type whole = stitched();
        graft::sparse_stitched<stitched_type> model(whole, {policy.experts, policy.choose_from});
        return use(model);
      }
    }
    return with_trainable(use);
  }
  // The same for models with parameters of their own.
  template <class Use>
  auto with_trainable(Use use) {
    GRAFT_CHECK(info_.card.kind != "forest", place(), ": expected a stitched model or expert routing to train, a ",
                "forest has nothing to train");
    if (info_.card.kind == "stitched") {
      GRAFT_CHECK(stitch_policy_of(info_.card.policy, place()).experts == 0, place(),
                  ": expected stitches of all experts to train, those of a router are made of trained ones");
      stitched_type model = stitched();
      return use(model);
    }
    routed_type model(members_, routing_policy_of(info_.card.policy, place()));
    return use(model);
  }

  stitched_type stitched() const {
    const stitch_policy policy = stitch_policy_of(info_.card.policy, place());
    return stitched_type(*context_, members_, policy.topology,
                         {policy.stitches, policy.dropout, policy.carry_raw_expert_state});
  }
  forest_type forest() const {
    const forest_policy policy = forest_policy_of(info_.card.policy, members_.size(), place());
    forest_type model(members_, policy.posterior);
    if (!policy.prior.empty()) model.set_prior(policy.prior);
    return model;
  }

 private:
  context_type* context_;
  graft::assembly_info info_;
  std::vector<std::shared_ptr<member_type>> members_;
  std::string description_;
};

// Own parameters from the assembly's folder; nothing for a model that has none.
template <class Model>
void load_own(Model& model, const fs::path& folder) {
  if constexpr (requires { model.router(), model.model(); }) {
    graft::parameter_layout both = model.model().layout();
    const index_t at = both.size;
    for (graft::tensor_entry entry : model.router().layout().tensors) {
      entry.offset += at;
      both.tensors.push_back(entry);
    }
    both.size += model.router().layout().size;
    std::vector<typename Model::M> values(static_cast<std::size_t>(both.size));
    graft::load_assembly_parameters(folder, both, values.data());
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(at);
    set_parameters(model.model(), std::vector<typename Model::M>(values.begin(), middle));
    set_parameters(model.router(), std::vector<typename Model::M>(middle, values.end()));
  } else if constexpr (requires { model.parameters(); }) {
    std::vector<typename Model::M> values(static_cast<std::size_t>(model.layout().size));
    graft::load_assembly_parameters(folder, model.layout(), values.data());
    set_parameters(model, values);
  }
}

}  // namespace detail

template <class Compute>
nlohmann::json assembly_work<Compute>::train(context_type& context, const training_job& job,
                                             const observe_step& observe) {
  graft::assembly_info info;
  if (job.start) {
    info = graft::load_assembly_info(*job.start);
  } else {
    info = {job.out, *job.assembly, {}};
    for (const graft::assembly_member& member : info.card.members)
      info.members.push_back(graft::load_model_info(member.folder));
  }
  detail::assembly_models<Compute> models(context, info);
  return models.with_trainable([&](auto& model) {
    if (job.start)
      detail::load_own(model, *job.start);
    else
      model.initialize(job.seed);
    const index_t total = model.parameter_count();
    index_t active = total;
    if constexpr (requires { model.active_parameter_count(); }) active = model.active_parameter_count();
    const training_start start{info.card.provenance, info.folder, total, active, models.description()};
    return train_model(model, start, job, {}, observe, [&](const auto& values, const nlohmann::json& origin) {
      graft::assembly_card card = info.card;
      const nlohmann::json parents = info.card.provenance.value("parents", nlohmann::json::array());
      card.provenance = origin;
      if (!job.start) card.provenance["parents"] = parents;
      graft::save_assembly(job.out, card, model.layout(), values.data());
    });
  });
}

template <class Compute>
std::vector<double> assembly_work<Compute>::prior(context_type& context, const graft::assembly_card& card,
                                                  const fs::path& tokens, index_t positions) {
  graft::assembly_info info{"forest", card, {}};
  for (const graft::assembly_member& member : card.members)
    info.members.push_back(graft::load_model_info(member.folder));
  detail::assembly_models<Compute> models(context, info);
  auto model = models.forest();
  graft::evaluation_windows windows(graft::token_file(tokens, model.shape().vocabulary), positions, 0);
  return graft::fit_prior(model, windows);
}

template <class Compute>
std::vector<graft::evaluation> assembly_work<Compute>::evaluate(context_type& context, const evaluation_job& job) {
  const graft::assembly_info info = graft::load_assembly_info(job.model);
  require_bytes(info.card.tokenizer, job.model);
  detail::assembly_models<Compute> models(context, info);
  return models.with_model([&](auto& model) {
    detail::load_own(model, job.model);
    return evaluate_model(model, job);
  });
}

template <class Compute>
std::string assembly_work<Compute>::generate(context_type& context, const fs::path& folder, const std::string& prompt,
                                             const graft::generation_options& options,
                                             const std::function<void(const std::string&)>& emit) {
  const graft::assembly_info info = graft::load_assembly_info(folder);
  require_bytes(info.card.tokenizer, folder);
  detail::assembly_models<Compute> models(context, info);
  return models.with_model([&](auto& model) {
    detail::load_own(model, folder);
    return generate_text(model, prompt, options, emit);
  });
}

template <class Compute>
graft::gate_trace assembly_work<Compute>::gates(context_type& context, const fs::path& folder,
                                                const std::vector<std::int32_t>& ids) {
  const graft::assembly_info info = graft::load_assembly_info(folder);
  std::vector<std::string> names;
  for (const graft::assembly_member& member : info.card.members) names.push_back(member.name);
  detail::assembly_models<Compute> models(context, info);
  if (info.card.kind == "expert_routing") return {};  // one choice for the whole text
  return models.with_model([&](auto& model) -> graft::gate_trace {
    detail::load_own(model, folder);
    if constexpr (requires { model.plan(); })
      return graft::trace_stitches(model, ids, names);
    else if constexpr (requires { model.posterior(); })
      return graft::trace_posterior(model, ids, names);
    else
      return {};
  });
}

}  // namespace examples
