// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The engine's work on model directories, for each kind of model: dense, a mixture by name, and that with attention
// experts. One kind is one instantiation.

#include <string>
#include <utility>
#include <vector>

#include <graft/analysis/trace_routing.hpp>
#include <graft/io/attention_card.hpp>
#include <graft/models/counts.hpp>
#include <graft/models/transformer.hpp>

#include "common/mixtures.hpp"
#include "common/model_tasks.hpp"

namespace examples {

template <class Compute>
using attention_mixture = graft::with_attention_experts<graft::any_mixture<Compute>>;

namespace detail {

template <class Mixture, class Compute>
Mixture mixture_named(const mixture_names& names) {
  if constexpr (!Mixture::present)
    return {};
  else if constexpr (std::is_same_v<Mixture, graft::any_mixture<Compute>>)
    return make_mixture<Compute>(names);
  else
    return Mixture(make_mixture<Compute>(names), graft::attention_experts_of(*names.attention));
}

}  // namespace detail

template <class Compute, class Mixture>
struct model_work {
  using context_type = typename Compute::context_type;
  using model_type = graft::transformer<Mixture, Compute>;

  // From job.start, or a new model.
  static nlohmann::json train(context_type& context, graft::model_info info, const training_job& job,
                              const observe_step& observe) {
    return with_model(context, info, job.mixture, [&](model_type& model) {
      if (job.start)
        load(model, *job.start);
      else
        model.initialize(job.seed);
      const training_start start{origin_of(info), info.folder, model.layout().parameter_count(),
                                 graft::active_parameter_count(model.shape(), model.mixture()), ""};
      return train_model(model, start, job, graft::trainable_after_mix(job.trained), observe,
                         [&](const std::vector<typename Compute::master>& values, const nlohmann::json& origin) {
                           save(model, info, job, values, origin);
                         });
    });
  }
  static std::vector<graft::evaluation> evaluate(context_type& context, graft::model_info info,
                                                 const evaluation_job& job) {
    return with_loaded(context, info, [&](model_type& model) { return evaluate_model(model, job); });
  }
  static std::string generate(context_type& context, graft::model_info info, const std::string& prompt,
                              const graft::generation_options& options,
                              const std::function<void(const std::string&)>& emit) {
    return with_loaded(context, info, [&](model_type& model) { return generate_text(model, prompt, options, emit); });
  }
  static graft::routing_trace routing(context_type& context, graft::model_info info,
                                      const std::vector<std::int32_t>& ids, index_t positions) {
    if constexpr (!Mixture::present)
      return {};
    else
      return with_loaded(context, info, [&](model_type& model) { return graft::trace_routing(model, ids, positions); });
  }

 private:
  template <class Use>
  static auto with_model(context_type& context, graft::model_info& info, const mixture_choice& choice, Use use) {
    try {
      mixture_names names;
      if constexpr (Mixture::present) {
        const graft::model_card card = graft::card_of(info);
        names = names_of(&card, choice, info.config.shape.experts, info.config.experts_per_token);
      }
      model_type model(context, info.config.shape, detail::mixture_named<Mixture, Compute>(names));
      if constexpr (Mixture::present) {
        if (!info.card) info.card.emplace();
        write_names(names, model.mixture().options(), *info.card);
      }
      return use(model);
    } catch (const graft::error& problem) {
      if (!Mixture::present) throw;
      const std::string place = info.folder.string(), words = problem.what();
      graft::detail::raise(words.starts_with(place) ? words : place + ": " + words);
    }
  }

  // With the weights of a model that reads bytes.
  template <class Use>
  static auto with_loaded(context_type& context, graft::model_info& info, Use use) {
    require_bytes(info.tokenizer, info.folder);
    return with_model(context, info, {}, [&](model_type& model) {
      load(model, info.folder);
      return use(model);
    });
  }

  static void load(model_type& model, const fs::path& folder) {
    std::vector<typename Compute::master> values(static_cast<std::size_t>(model.layout().size));
    graft::load_parameters(folder, model.layout(), values.data());
    set_parameters(model, values);
  }

  static void save(const model_type& model, const graft::model_info& info, const training_job& job,
                   const std::vector<typename Compute::master>& values, const nlohmann::json& origin) {
    graft::model_card card = info.card.value_or(graft::model_card{});
    card.provenance = origin;
    card.tokenizer = info.tokenizer;
    graft::save_options options;
    if (job.start) options.tokenizer_from = *job.start;
    graft::save_model(job.out, info.config, model.layout(), values.data(), card, options);
  }
};

}  // namespace examples
