// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// branch_train_mix: the complete workflow. One seed, one branch per domain, each trained alone, made into one model by
// each of the methods of the family that was asked for, evaluated beside dense models of the same tokens. Every stage
// reads and writes folders of models; a run that was stopped goes on when the same command is given again.
//
//   build/bin/branch_train_mix --preset quick --out runs/quick
//   build/bin/branch_train_mix --preset quick --methods all --out runs/all
//   build/bin/branch_train_mix --domain law=~/law --domain code=~/src --out runs/mine
//   srun --ntasks 8 build/bin/branch_train_mix --device cuda --preset full     # every model on 8 devices at once
//   build/bin/branch_train_mix --device cuda --preset full --jobs 8            # branches side by side, a device each
//
// Above 400 lines: it is the one place where all stages follow each other.

#include <algorithm>
#include <chrono>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include <graft/io/default_domains.hpp>
#include <graft/mix/model_directories.hpp>

#include "common/assembling.hpp"
#include "common/data.hpp"
#include "common/discover.hpp"
#include "common/folder.hpp"
#include "common/methods.hpp"
#include "common/mixture_flags.hpp"
#include "common/mixtures.hpp"
#include "common/options.hpp"
#include "common/origin.hpp"
#include "common/peak_memory.hpp"
#include "common/presets.hpp"
#include "common/processes.hpp"
#include "common/progress.hpp"
#include "common/run_results.hpp"
#include "common/stitch_flags.hpp"
#include "common/training_flags.hpp"
#include "common/variants.hpp"

namespace {

using namespace examples;

struct workflow_options {
  common_options common{};
  std::string preset_name = "quick";
  fs::path out;
  std::vector<std::string> domains;
  discover_choice discover{};
  std::vector<std::string> general;  // domains that the seed answers for: they get no branch
  std::string cross;                 // NAME=PATH
  bool cross_tokens = false;
  std::vector<std::string> methods{"soup", "btx"};
  graft::mix_training trained = graft::mix_training::all;
  index_t experts_per_token = 2;
  std::string experts = "whole";
  mixture_choice mixture{};
  std::vector<std::string> compare;  // more mixtures of the same experts
  stitch_choice stitch{};
  std::string ablation;
  int jobs = 1;
  bool without_seed = false, without_controls = false;
  double checkpoint_seconds = 30;
};

class workflow {
 public:
  workflow(const workflow_options& options, fs::path program, rank_world& ranks)
      : ranks_(ranks),
        options_(options),
        preset_(preset_named(options.preset_name)),
        program_(std::move(program)),
        engine_(make_engine(options.common.engine)) {
    options_.methods = chosen_methods(options.methods);
    all_methods_ = options_.methods != options.methods;
  }

  int run() {
    const auto start = std::chrono::steady_clock::now();
    GRAFT_CHECK(ranks_.size() == 1 || (options_.jobs == 1 && !ablates()), options_.jobs > 1 ? "--jobs" : "--ablation",
                ": expected one process, got ", ranks_.size(), " ranks, which train each model together");
    const fs::path data = options_.out / "data";
    const std::vector<graft::domain_source> sources = ranks_.in_turn([&] {
      return domains_from(options_.domains, options_.discover, data, options_.common.seed,
                          options_.common.engine.threads);
    });
    choose_branches(sources);
    const std::optional<graft::domain_source> cross = choose_cross(sources);
    std::cerr << "device " << engine_->device() << ", precision " << engine_->precision() << ", seed "
              << options_.common.seed << "\ndomains:" << std::endl;
    ranks_.in_turn([&] {
      domains_ = prepare_domains(sources, data, preset_.max_bytes, preset_.shape.positions);
      if (cross) cross_ = prepare_domains({*cross}, data, preset_.max_bytes, preset_.shape.positions).front();
    });

    std::cerr << "training:" << std::endl;
    train_seed();
    if (!train_branches()) return 1;
    mix();
    if (!ranks_.go_on_alone()) return 0;
    const double trained = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

    run_results results({*engine_, options_.out, options_.preset_name, preset_, options_.common.seed, domains_, cross_,
                         expert_names_, members_});
    const result_table table = results.evaluate(rows_, failed_);
    std::cout << table.to_text() << std::endl;
    graft::write_file(options_.out / "results.json", table.to_json().dump(2) + "\n");
    graft::write_file(options_.out / "results.txt", table.to_text());
    const result_table ablation = ablate(results);
    results.draw(table, trained_);
    results.sample(table);
    results.report(table, ablation, trained_);
    const double all = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    // Of this process: branches of --jobs are not in it.
    const double peak = static_cast<double>(peak_memory::of_process()) / (1 << 20);
    std::printf(
        "%s: results.json, report.html, plots/, samples.txt, models/; %.0f s, of which %.0f s data and training; peak "
        "memory %.0f MiB\n",
        options_.out.c_str(), all, trained, peak);
    if (failed_.empty()) return 0;
    std::cout << std::flush;
    for (const auto& [name, reason] : failed_)
      std::cerr << "branch_train_mix: " << name << " is missing: " << reason << "\n";
    std::cerr << "branch_train_mix: " << failed_.size() << " of the methods' models are missing; when the reason is "
              << "gone, the same command makes what is missing" << std::endl;
    return 1;
  }

 private:
  fs::path model(const std::string& name) const { return options_.out / "models" / name; }
  static std::string expert_name(const graft::corpus& domain) { return "expert-" + domain.name; }
  bool does(const std::string& method) const {
    return std::find(options_.methods.begin(), options_.methods.end(), method) != options_.methods.end();
  }
  bool ablates() const { return !options_.ablation.empty(); }

  // ---- before anything is trained ----------------------------------------------------------------
  void choose_branches(const std::vector<graft::domain_source>& domains) {
    // Without a word about it the first of the default domains is the seed's own; a user's domains all get a branch.
    std::set<std::string> general(options_.general.begin(), options_.general.end());
    if (general.empty() && options_.domains.empty() && !options_.discover.wanted())
      general.insert(domains.front().name);
    for (const std::string& name : general)
      GRAFT_CHECK(
          std::any_of(domains.begin(), domains.end(), [&](const graft::domain_source& d) { return d.name == name; }),
          "--general: there is no domain ", name);
    for (std::size_t i = 0; i < domains.size(); ++i)
      if (general.count(domains[i].name) == 0) branched_.push_back(i);
    GRAFT_CHECK(!branched_.empty(),
                "expected at least one domain with a branch of its own, got none: every domain is --general");
    for (const std::size_t domain : branched_)
      GRAFT_CHECK(options_.without_seed || domains[domain].name != "seed",
                  "--domain: expected another name than seed, which is the seed's expert");
    for (const std::size_t domain : branched_) members_.push_back(domains[domain].name);
    if (!options_.without_seed) members_.insert(members_.begin(), "seed");
    choose_mixtures(domains);
    choose_assemblies();
  }

  void choose_mixtures(const std::vector<graft::domain_source>& domains) {
    std::vector<graft::expert_card> cards;
    if (!options_.without_seed) cards.push_back({"seed", ""});
    for (const std::size_t domain : branched_) cards.push_back({domains[domain].name, domains[domain].name});
    for (const graft::expert_card& expert : planned_experts(options_.experts, cards, preset_.shape.hidden))
      expert_names_.push_back(expert.name);
    const auto experts = static_cast<index_t>(expert_names_.size());
    const mixture_variant usual{"btx", options_.mixture, options_.experts_per_token};
    mixture_choice plain;  // of methods that are what they are, whatever --router says
    plain.balancers = {"none"};
    if (does("btx_sample")) add_variant({"btx-sample", with_router(plain, "sample_top_1"), experts}, "btx_sample");
    if (does("btx")) variants_.push_back(usual);
    if (does("btx_soft")) add_variant({"btx-soft", with_router(plain, "soft"), experts}, "btx_soft");
    if (!does("btx") && !does("upcycling"))
      refuse_mixture_choice(options_.mixture, "--methods without btx or upcycling");
    GRAFT_CHECK(does("btx") || options_.compare.empty(), "--compare: expected btx among the --methods");
    for (const std::string& text : options_.compare) variants_.push_back(parse_variant(text, usual));
    for (const mixture_variant& each : variants_) check_variant(each, experts);
    // Attention experts: one for each model, beside feed-forward experts that are all used where that is compiled.
    const auto models = static_cast<index_t>(members_.size());
    for (const std::string method : {"bam", "bam_adapters"}) {
      if (!does(method)) continue;
      GRAFT_CHECK(models >= 2 || all_methods_, "--methods ", method, ": expected at least 2 models, got ", models);
      if (models < 2) continue;
      mixture_variant bam{method, with_router(plain, "soft"), models};
      if (method == "bam_adapters") bam.choice.layout = "adapted";
      if (!offered(bam, models)) {
        bam.choice.router = "top_k";
        bam.experts_per_token = 2;
        if (!compiled(method, offered(bam, models), "all policies on this device")) continue;
        std::cerr << method << ": feed-forward experts by top_k/2; soft is compiled for " << all_experts_compiled
                  << " models" << std::endl;
      }
      bam_.push_back(bam);
    }
    if (does("upcycling") && models < options_.experts_per_token)
      GRAFT_CHECK(all_methods_, "--methods upcycling: expected at least ", options_.experts_per_token, " models, got ",
                  models);
  }
  static mixture_choice with_router(mixture_choice choice, const std::string& router) {
    choice.router = router;
    return choice;
  }
  // What the programs are not compiled for is left out with --methods all, and an error where it was asked for.
  bool compiled(const std::string& method, bool is, const std::string& what) const {
    GRAFT_CHECK(is || all_methods_, "--methods ", method, ": these programs are compiled for it with ", what, " alone");
    if (!is) std::cerr << "left out: " << method << ", which is compiled for " << what << " alone" << std::endl;
    return is;
  }
  bool offered(const mixture_variant& variant, index_t experts) const {
    try {
      engine_->check_mixture(names_of(nullptr, variant.choice, experts, variant.experts_per_token));
      return true;
    } catch (const graft::error&) {
      return false;
    }
  }
  // A mixture whose router uses all experts is compiled for one number of them.
  void add_variant(const mixture_variant& variant, const std::string& method) {
    if (compiled(method, offered(variant, static_cast<index_t>(expert_names_.size())),
                 std::to_string(all_experts_compiled) + " experts" +
                     (expert_names_.size() == all_experts_compiled ? " on another device" : "")))
      variants_.push_back(variant);
  }
  void check_variant(const mixture_variant& each, index_t experts) const {
    graft::transformer_shape shape = preset_.shape;
    shape.experts = experts;
    GRAFT_CHECK(each.experts_per_token <= experts, "--experts-per-token: expected at most ", experts,
                ", the number of experts of the mixture, got ", each.experts_per_token);
    const mixture_names names = names_of(nullptr, each.choice, experts, each.experts_per_token);
    const graft::parameter_layout layout = facts_of(names, shape).layout;
    engine_->check_mixture(names);
    const graft::trainable_rule trained = graft::trainable_after_mix(options_.trained);
    GRAFT_CHECK(!trained || std::any_of(layout.tensors.begin(), layout.tensors.end(), trained), "--mix-training ",
                graft::name_of(options_.trained), ": expected a mixture that has some, got the router ", names.router,
                " with the layout ", names.layout);
  }

  void choose_assemblies() {
    GRAFT_CHECK(!ablates() || does("bts"), "--ablation bts: expected bts among the --methods");
    for (const char* name : {"btm", "expert_routing", "bts"})
      GRAFT_CHECK(!does(name) || members_.size() >= 2 || all_methods_, "--methods ", name,
                  ": expected at least 2 models, got ", members_.size());
    GRAFT_CHECK(does("bts") || !options_.stitch.given(),
                "--topology, --stitches, --hub and --dropout: expected bts among the --methods");
    if (!does("bts") || members_.size() < 2) return;
    const std::string& hub = options_.stitch.hub;
    GRAFT_CHECK(hub.empty() || std::find(members_.begin(), members_.end(), hub) != members_.end(),
                "--hub: expected one of ", graft::detail::joined(members_), ", got ", hub);
    stitch_policy_of(options_.stitch, preset_.shape.blocks, members_.size());
  }

  std::optional<graft::domain_source> choose_cross(const std::vector<graft::domain_source>& domains) const {
    std::optional<graft::domain_source> cross;
    if (!options_.cross.empty()) {
      cross = parse_domain(options_.cross, "--cross");
      for (const graft::domain_source& domain : domains)
        GRAFT_CHECK(domain.name != cross->name, "--cross: expected another name than that of a domain, got ",
                    cross->name);
    } else if (options_.domains.empty() && !options_.discover.wanted()) {
      cross = graft::french_c_domain();
      try {
        graft::walk_domain(*cross);
      } catch (const graft::error& problem) {
        if (options_.cross_tokens) throw;
        std::cerr << "left out: the column " << cross->name << " (" << problem.what() << ")" << std::endl;
        cross.reset();
      }
    }
    GRAFT_CHECK(cross || !options_.cross_tokens,
                "--cross-tokens: expected --cross NAME=PATH, which there is none of "
                "for domains of one's own");
    return cross;
  }

  // ---- training ----------------------------------------------------------------------------------
  training_job job(const std::string& name, const std::string& method, const graft::training_options& training) const {
    training_job result;
    result.label = name;
    result.method = method;
    result.out = model(name);
    result.training = training;
    result.seed = options_.common.seed;
    result.mixture = options_.mixture;
    result.checkpoint_seconds = options_.checkpoint_seconds;
    return result;
  }
  void train(const training_job& what) {
    if (what.training.steps == 0) {
      engine_->train(what, {});
      return;
    }
    progress_bar bar(what.label, what.training.steps);
    engine_->train(what, std::ref(bar));
    trained_.push_back(what.label);
  }

  void train_seed() {
    training_job seed = job("seed", "seed", preset_.seed);
    seed.shape = preset_.shape;
    seed.data = training_data(domains_);
    train(seed);
    rows_.emplace_back("seed");
  }

  training_job branch_job(std::size_t domain) const {
    training_job branch = job(expert_name(domains_[domain]), "expert", preset_.expert);
    branch.start = model("seed");
    branch.data = {{domains_[domain].name, domains_[domain].train.path, 1.0}};
    return branch;
  }

  // One branch failing leaves the others alone. Returns whether all are there.
  bool train_branches() {
    std::vector<std::pair<std::string, std::string>> failed;  // name, reason
    if (options_.jobs <= 1) {
      for (const std::size_t domain : branched_) {
        const training_job branch = branch_job(domain);
        try {
          train(branch);
        } catch (const std::exception& problem) {
          if (ranks_.size() > 1) throw;
          failed.emplace_back(branch.label, problem.what());
        }
      }
    } else {
      engine_->release();
      std::vector<child_command> commands;
      for (const std::size_t domain : branched_) commands.push_back(branch_command(branch_job(domain)));
      run_processes(
          commands, options_.jobs,
          [&](const child_command& command, int status) {
            if (status == 0) std::cerr << command.label << " is trained" << std::endl;
            if (status != 0) failed.emplace_back(command.label, failure_of(command, status));
          },
          [devices = device_count(options_.common.engine.device)](child_command& command, int place) {
            const auto device = std::find(command.words.begin(), command.words.end(), "--device");
            if (devices > 1) device[1] = "cuda:" + std::to_string(place % devices);
          });
      for (const std::size_t domain : branched_) trained_.push_back(expert_name(domains_[domain]));
    }
    for (const std::size_t domain : branched_) rows_.push_back(expert_name(domains_[domain]));
    if (failed.empty()) return true;
    for (const auto& [name, reason] : failed)
      std::cerr << "branch_train_mix: " << name << " is missing: " << reason << "\n";
    std::cerr << "branch_train_mix: " << branched_.size() - failed.size() << " of " << branched_.size()
              << " branches are done; when the reason is gone, the same command trains what is missing and goes on"
              << std::endl;
    return false;
  }

  // The program `branch` beside this one, with the same options.
  child_command branch_command(const training_job& branch) const {
    const int cores = options_.common.engine.threads > 0 ? options_.common.engine.threads
                                                         : static_cast<int>(std::thread::hardware_concurrency());
    child_command command{
        branch.label, {(program_.parent_path() / "branch").string()}, options_.out / "logs" / (branch.label + ".log")};
    const auto add = [&](const std::string& flag, const std::string& value) {
      command.words.insert(command.words.end(), {flag, value});
    };
    add("--from", branch.start->string());
    add("--out", branch.out.string());
    add("--tokens", branch.data.front().name + "=" + branch.data.front().path.string());
    add("--label", branch.label);
    add("--device", options_.common.engine.device);
    add("--precision", options_.common.engine.precision);
    add("--threads", std::to_string(std::max(1, cores / options_.jobs)));
    add("--seed", std::to_string(options_.common.seed));
    add("--checkpoint-seconds", std::to_string(branch.checkpoint_seconds));
    const std::vector<std::string> words = training_words(branch.training);
    command.words.insert(command.words.end(), words.begin(), words.end());
    return command;
  }

  // ---- methods -----------------------------------------------------------------------------------
  // One model failing leaves the others alone, but ends a run of several ranks: they must go on alike.
  template <class Work>
  void attempt(const std::string& name, Work work) {
    try {
      work();
    } catch (const std::exception& problem) {
      if (ranks_.size() > 1) throw;
      failed_.emplace_back(name, problem.what());
      std::cerr << name << " is left out: " << problem.what() << std::endl;
      return;
    }
    rows_.push_back(name);
  }

  // A model that is trained on the mix, and with --cross-tokens a second one with 15 % of the cross set's tokens.
  template <class Make>
  void train_mix(const std::string& name, Make make) {
    attempt(name, [&] {
      training_job plain = make(name);
      plain.data = training_data(domains_);
      train(plain);
    });
    if (!options_.cross_tokens) return;
    const std::string in_domain = name + "+" + cross_->name;
    attempt(in_domain, [&] {
      training_job more = make(in_domain);
      more.data = training_data(domains_);
      more.data.push_back({cross_->name, cross_->train.path, 0.15 / 0.85 * static_cast<double>(domains_.size())});
      train(more);
    });
  }

  std::vector<graft::branch_directory> branches() const {
    std::vector<graft::branch_directory> all;
    if (!options_.without_seed) all.push_back({model("seed"), "seed", ""});
    for (const std::size_t domain : branched_)
      all.push_back({model(expert_name(domains_[domain])), domains_[domain].name, domains_[domain].name});
    return all;
  }

  void mix() {
    if (!options_.without_controls) train_controls();
    if (does("soup")) attempt("soup", [&] { mix_in_turn(graft::soup_recipe, branches(), model("soup"), mixing()); });
    if (members_.size() >= 2) {
      if (does("btm")) forests();
      if (does("expert_routing")) routing();
    }
    if (does("upcycling") && static_cast<index_t>(members_.size()) >= options_.experts_per_token) upcycling();
    mixtures();
    for (const mixture_variant& each : bam_) attention_experts(each);
    if (does("bts") && members_.size() >= 2) {
      attempt("bts-untrained", [&] { train(stitch_job("bts-untrained", options_.stitch, 0)); });
      train_mix("bts", [&](const std::string& name) { return stitch_job(name, options_.stitch, preset_.mix.steps); });
      if (does("expert_routing")) routed_stitches();
    }
  }

  void mix_in_turn(const graft::recipe& how, const std::vector<graft::branch_directory>& from, const fs::path& out,
                   const graft::directory_mix_options& options) const {
    ranks_.in_turn([&] { mix_once(how, from, out, options); });
  }
  graft::directory_mix_options mixing() const {
    graft::directory_mix_options mix;
    mix.mix.seed = options_.common.seed;
    return mix;
  }
  graft::directory_mix_options mixing(const mixture_names& names) const {
    graft::directory_mix_options mix = mixing();
    mix.experts_per_token = names.experts_per_token;
    mix.plan = plan_of(names);
    return mix;
  }

  // What the same tokens give without branching: one dense model that sees the mix's tokens, and one that sees all
  // tokens that experts and mix saw together, one after another.
  void train_controls() {
    train_mix("dense-mix-tokens", [&](const std::string& name) {
      training_job mix_only = job(name, "dense", preset_.mix);
      mix_only.start = model("seed");
      return mix_only;
    });
    attempt("dense-all-tokens", [&] {
      graft::training_options all = preset_.mix;
      all.steps = preset_.mix.steps + static_cast<index_t>(branched_.size()) * preset_.expert.steps;
      std::vector<double> weights(domains_.size(),
                                  static_cast<double>(preset_.mix.steps) / static_cast<double>(domains_.size()));
      for (const std::size_t domain : branched_) weights[domain] += static_cast<double>(preset_.expert.steps);
      training_job all_tokens = job("dense-all-tokens", "dense", all);
      all_tokens.start = model("seed");
      all_tokens.data = training_data(domains_, weights);
      train(all_tokens);
    });
  }

  void forests() {
    const auto add = [&](const std::string& name, index_t kept) {
      forest_policy policy;
      policy.posterior.kept = kept;
      attempt(name, [&] {
        ranks_.in_turn([&] { assemble_once(assembly_of("forest", "btm", card_of(policy), branches()), model(name)); });
      });
    };
    add("btm", 0);
    add("btm-top-1", 1);
    if (members_.size() > 2) add("btm-top-2", 2);
    // One member for each cluster, in their order: no domain is named or left to the seed.
    if (options_.discover.wanted() && options_.domains.empty() && options_.general.empty()) clustered_forest();
  }

  void routing() {
    train_mix("expert-routing", [&](const std::string& name) {
      training_job routing = job(name, "expert_routing", preset_.routing());
      routing.assembly = assembly_of("expert_routing", "expert_routing",
                                     card_of(routing_options(preset_.shape.positions)), branches());
      return routing;
    });
  }

  // The stitched model of which every sequence uses some experts alone, chosen by expert routing's router.
  void routed_stitches() {
    const std::string hub = options_.stitch.hub.empty() ? members_.front() : options_.stitch.hub;
    if (hub != members_.front()) return;  // the router's classes are in another order
    for (index_t experts = 1; experts + 1 < static_cast<index_t>(members_.size()) && experts <= 2; ++experts) {
      const std::string name = "bts-top-" + std::to_string(experts);
      attempt(name, [&] {
        ranks_.in_turn([&] { route_stitches_once(model("bts"), model("expert-routing"), experts, model(name)); });
      });
    }
  }

  // The forest of clusters that were discovered: weighed by how near the text is to each.
  void clustered_forest() {
    attempt("c-btm", [&] {
      std::vector<graft::branch_directory> experts;
      for (const graft::branch_directory& each : branches())
        if (each.name != "seed") experts.push_back(each);
      cluster_policy policy;
      policy.file = fs::relative(fs::absolute(discovered_clusters(options_.out / "data")), fs::absolute(model("c-btm")))
                        .generic_string();
      ranks_.in_turn([&] { assemble_once(assembly_of("forest", "c_btm", card_of(policy), experts), model("c-btm")); });
    });
  }

  void upcycling() {
    train_mix("upcycling", [&](const std::string& name) {
      const auto experts = static_cast<index_t>(members_.size());
      graft::directory_mix_options mix =
          mixing(names_of(nullptr, options_.mixture, experts, options_.experts_per_token));
      mix.experts = graft::cloned_experts(experts);
      const fs::path untrained = model("upcycling-untrained");
      mix_in_turn(graft::upcycle_recipe, {{model("seed"), "seed", ""}}, untrained, mix);
      training_job result = job(name, "upcycling", preset_.mix);
      result.start = untrained;
      return result;
    });
  }

  void mixtures() {
    for (const mixture_variant& each : variants_) {
      const std::string untrained = each.name + "-untrained";
      const auto write = [&] {
        graft::directory_mix_options mix =
            mixing(names_of(nullptr, each.choice, static_cast<index_t>(expert_names_.size()), each.experts_per_token));
        mix.experts = graft::parse_expert_planner(options_.experts);
        mix_in_turn(graft::btx_recipe, branches(), model(untrained), mix);
      };
      if (each.name == "btx") attempt(untrained, write);
      train_mix(each.name, [&](const std::string& name) {
        write();
        training_job btx = job(name,
                               each.name == "btx-sample" ? "btx_sample"
                               : each.name == "btx-soft" ? "btx_soft"
                                                         : "btx",
                               preset_.mix);
        btx.start = model(untrained);
        btx.mixture = each.choice;
        btx.trained = options_.trained;
        btx.snapshots = snapshots();
        return btx;
      });
    }
  }

  void attention_experts(const mixture_variant& variant) {
    const bool adapters = variant.name == "bam_adapters";
    std::string name = variant.name;
    std::replace(name.begin(), name.end(), '_', '-');
    train_mix(name, [&](const std::string& trained_name) {
      graft::attention_experts attention;
      attention.experts = static_cast<index_t>(members_.size());
      attention.adapters = adapters;
      mixture_names names = names_of(nullptr, variant.choice, attention.experts, variant.experts_per_token);
      names.attention = graft::card_of(attention);
      mix_in_turn(graft::bam_recipe, branches(), model(name + "-untrained"), mixing(names));
      training_job bam = job(trained_name, variant.name, preset_.mix);
      bam.start = model(name + "-untrained");
      bam.mixture = {};
      bam.trained = adapters ? graft::mix_training::routers_and_adapters : graft::mix_training::all;
      bam.snapshots = snapshots();
      return bam;
    });
  }

  training_job stitch_job(const std::string& name, const stitch_choice& choice, index_t steps) const {
    training_job bts = job(name, "bts", preset_.stitch());
    bts.training.steps = steps;
    bts.training.warmup_steps = std::min(bts.training.warmup_steps, steps);
    bts.assembly =
        assembly_of("stitched", "bts", card_of(stitch_policy_of(choice, preset_.shape.blocks, members_.size())),
                    branches(), choice.hub);
    bts.data = training_data(domains_);
    return bts;
  }

  // About a thousand tokens of all domains.
  snapshot_options snapshots() const {
    return {held_out_data(domains_), std::max<index_t>(1, 1024 / static_cast<index_t>(domains_.size())),
            preset_.shape.positions};
  }

  // ---- results -----------------------------------------------------------------------------------
  // What of the stitches matters: how many, whether they alternate, and who is the hub. Seed and experts are the same.
  result_table ablate(run_results& results) {
    if (!ablates()) return {};
    std::vector<std::string> names{"seed", "bts"};
    for (const auto& variant : stitch_ablation(options_.stitch, preset_.shape.blocks, members_)) {
      const std::string& name = variant.first;
      const std::size_t failed = failed_.size();
      attempt(name, [&] { train(stitch_job(name, variant.second, preset_.mix.steps)); });
      if (failed_.size() == failed) names.push_back(name);
    }
    const result_table table = results.evaluate(names, failed_);
    std::cout << "bts, one thing changed in each row\n" << table.to_text() << std::endl;
    graft::write_file(options_.out / "ablation.json", table.to_json().dump(2) + "\n");
    graft::write_file(options_.out / "ablation.txt", table.to_text());
    return table;
  }

  rank_world& ranks_;
  workflow_options options_;
  preset preset_;
  fs::path program_;
  std::unique_ptr<engine> engine_;
  bool all_methods_ = false;
  std::vector<graft::corpus> domains_;
  std::optional<graft::corpus> cross_;
  std::vector<std::size_t> branched_;
  std::vector<std::string> members_, trained_, rows_, expert_names_;
  std::vector<mixture_variant> variants_, bam_;
  std::vector<std::pair<std::string, std::string>> failed_;  // name, reason
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Branch, train, mix: from one seed and several domains to one model", "branch_train_mix");
  workflow_options options;
  app.add_option("--preset", options.preset_name, "smoke, quick or full")->capture_default_str();
  app.add_option("--out", options.out, "folder of the run; default: runs/ and the preset's name");
  add_repeatable(app, "--domain", options.domains,
                 "NAME=PATH of text or token files, repeatable; default: four domains of Debian packages");
  add_discover_flag(app, options.discover);
  add_repeatable(
      app, "--general", options.general,
      "a domain that gets no branch, the seed answers for it; repeatable; default: the first of the default domains");
  app.add_option("--cross", options.cross,
                 "NAME=PATH of text that no branch is trained on, in a column of its own; default: French pages on the "
                 "C library, with the default domains");
  app.add_flag("--cross-tokens", options.cross_tokens,
               "what is trained on all domains a second time, with 15 % of the tokens from the cross set");
  std::vector<std::string> names = method_names();
  names.emplace_back("all");
  app.add_option("--methods", options.methods, "comma-separated; --list says what they are")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->default_str("soup,btx")
      ->check(CLI::IsMember(names));
  add_trained_flag(app, "--mix-training", options.trained, "what of a mixture is trained after mixing");
  app.add_option("--experts-per-token", options.experts_per_token, "of the mixture")
      ->capture_default_str()
      ->check(at_least(1));
  app.add_option("--experts", options.experts, experts_help)->capture_default_str();
  add_mixture_flags(app, options.mixture);
  app.add_option(
         "--compare", options.compare,
         "ROUTER/K+BALANCER+...,...: more mixtures of the same experts, each trained as btx, which is there too")
      ->delimiter(',')
      ->allow_extra_args(false);
  add_stitch_flags(app, options.stitch);
  app.add_option("--ablation", options.ablation,
                 "bts: stitches of other numbers, that do not alternate, with other hubs, in a table of their own")
      ->check(CLI::IsMember({"bts"}));
  app.add_flag_callback(
      "--list",
      [] {
        print_policies();
        throw CLI::Success();
      },
      "print routers, balancers, layouts, topologies and methods, and leave");
  app.add_flag("--without-seed", options.without_seed, "the seed is no expert of the mixture and not in the soup");
  app.add_flag("--without-controls", options.without_controls, "leave out the dense models of the same tokens");
  app.add_option("--jobs", options.jobs,
                 "branches trained at the same time, as processes; with several GPUs each has its own in turn")
      ->capture_default_str()
      ->check(at_least(1));
  app.add_option("--checkpoint-seconds", options.checkpoint_seconds, "between checkpoints")->capture_default_str();
  add_common_options(app, options.common);
  return run_program(app, argc, argv, [&](rank_world& ranks) {
    if (options.out.empty()) options.out = fs::path("runs") / options.preset_name;
    return workflow(options, fs::read_symlink("/proc/self/exe"), ranks).run();
  });
}
