// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// branch_train_mix: the complete workflow. One seed, one branch per domain, each trained alone, mixed into a
// mixture-of-experts (BTX) and averaged (soup), evaluated beside dense models of the same tokens. Every stage reads and
// writes model directories; a run that was stopped goes on when the same command is given again.
//
//   build/bin/branch_train_mix --preset quick --out runs/quick
//   build/bin/branch_train_mix --domain law=~/law --domain code=~/src --out runs/mine

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include <graft/mix/model_directories.hpp>

#include "common/characters.hpp"
#include "common/data.hpp"
#include "common/mixtures.hpp"
#include "common/origin.hpp"
#include "common/plots.hpp"
#include "common/presets.hpp"
#include "common/processes.hpp"
#include "common/progress.hpp"
#include "common/results.hpp"
#include "common/row.hpp"
#include "common/training_flags.hpp"
#include "common/variants.hpp"

namespace {

using namespace examples;

struct workflow_options {
  common_options common{};
  std::string preset_name = "quick";
  fs::path out;
  std::vector<std::string> domains;
  std::vector<std::string> general;  // domains that the seed answers for: they get no branch
  std::vector<std::string> methods{"soup", "btx"};
  graft::mix_training trained = graft::mix_training::all;
  index_t experts_per_token = 2;
  std::string experts = "whole";
  mixture_choice mixture{};
  std::vector<std::string> compare;  // more mixtures of the same experts
  int jobs = 1;
  bool without_seed = false, without_controls = false;
  double checkpoint_seconds = 30;
};

class workflow {
 public:
  workflow(const workflow_options& options, fs::path program)
      : options_(options),
        preset_(preset_named(options.preset_name)),
        program_(std::move(program)),
        engine_(make_engine(options.common.engine)) {}

  int run() {
    const auto start = std::chrono::steady_clock::now();
    const std::vector<graft::domain_source> sources = domains_from(options_.domains);
    choose_branches(sources);
    std::cerr << "device " << engine_->device() << ", precision " << engine_->precision() << ", seed "
              << options_.common.seed << "\ndomains:" << std::endl;
    domains_ = prepare_domains(sources, options_.out / "data", preset_.max_bytes, preset_.shape.positions);

    std::cerr << "training:" << std::endl;
    train_seed();
    if (!train_branches()) return 1;
    mix();
    if (!options_.without_controls) train_controls();
    const double trained = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

    const result_table table = evaluate();
    std::cout << table.to_text() << std::endl;
    graft::write_file(options_.out / "results.json", table.to_json().dump(2) + "\n");
    graft::write_file(options_.out / "results.txt", table.to_text());
    draw(table);
    sample();
    const double all = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    rusage own{};  // of this process: those that built it, or branches of --jobs, are not in it
    getrusage(RUSAGE_SELF, &own);
    const double peak = static_cast<double>(own.ru_maxrss) / 1024.0;  // ru_maxrss: KiB
    std::printf(
        "%s: results.json, plots/, samples.txt, models/; %.0f s, of which %.0f s data and training; peak memory %.0f "
        "MiB\n",
        options_.out.c_str(), all, trained, peak);
    return 0;
  }

 private:
  fs::path model(const std::string& name) const { return options_.out / "models" / name; }
  static std::string expert_name(const graft::corpus& domain) { return "expert-" + domain.name; }
  bool does(const std::string& method) const {
    return std::find(options_.methods.begin(), options_.methods.end(), method) != options_.methods.end();
  }

  void choose_branches(const std::vector<graft::domain_source>& domains) {
    // Without a word about it the first of the default domains is the seed's own; a user's domains all get a branch.
    std::set<std::string> general(options_.general.begin(), options_.general.end());
    if (general.empty() && options_.domains.empty()) general.insert(domains.front().name);
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
    if (!does("btx")) return;
    std::vector<graft::expert_card> cards;
    if (!options_.without_seed) cards.push_back({"seed", ""});
    for (const std::size_t domain : branched_) cards.push_back({domains[domain].name, domains[domain].name});
    for (const graft::expert_card& expert : planned_experts(options_.experts, cards, preset_.shape.hidden))
      expert_names_.push_back(expert.name);
    const auto experts = static_cast<index_t>(expert_names_.size());
    variants_.push_back({"btx", options_.mixture, options_.experts_per_token});
    for (const std::string& text : options_.compare) variants_.push_back(parse_variant(text, variants_.front()));
    // Before anything is trained: names, options and what does not go together.
    graft::transformer_shape shape = preset_.shape;
    shape.experts = experts;
    for (const mixture_variant& each : variants_) {
      GRAFT_CHECK(each.experts_per_token <= experts, "--experts-per-token: expected at most ", experts,
                  ", the number of experts of the mixture, got ", each.experts_per_token);
      facts_of(names_of(nullptr, each.choice, experts, each.experts_per_token), shape);
    }
  }

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
    progress_bar bar(what.label, what.training.steps);
    engine_->train(what, std::ref(bar));
    trained_.push_back(what.label);
  }

  void train_seed() {
    training_job seed = job("seed", "seed", preset_.seed);
    seed.shape = preset_.shape;
    seed.data = training_data(domains_);
    train(seed);
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
          failed.emplace_back(branch.label, problem.what());
        }
      }
    } else {
      std::vector<child_command> commands;
      for (const std::size_t domain : branched_) commands.push_back(branch_command(branch_job(domain)));
      run_processes(commands, options_.jobs, [&](const child_command& command, int status) {
        if (status == 0) std::cerr << command.label << " is trained" << std::endl;
        if (status != 0) failed.emplace_back(command.label, failure_of(command, status));
      });
      for (const std::size_t domain : branched_) trained_.push_back(expert_name(domains_[domain]));
    }
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

  void write_mix(const graft::recipe& how, const std::string& name,
                 const std::vector<graft::branch_directory>& branches, const mixture_choice& choice,
                 index_t experts_per_token) const {
    graft::directory_mix_options mix;
    mix.mix.seed = options_.common.seed;
    mix.experts_per_token = experts_per_token;
    if (how.rule_for(graft::role::ffn) == graft::merge_rule::one_per_branch) {
      mix.experts = graft::parse_expert_planner(options_.experts);
      mix.plan = plan_of(names_of(nullptr, choice, static_cast<index_t>(expert_names_.size()), experts_per_token));
    }
    mix_once(how, branches, model(name), mix);
  }

  void mix() {
    std::vector<graft::branch_directory> branches;
    if (!options_.without_seed) branches.push_back({model("seed"), "seed", ""});
    for (const std::size_t domain : branched_)
      branches.push_back({model(expert_name(domains_[domain])), domains_[domain].name, domains_[domain].name});
    if (does("soup")) write_mix(graft::soup_recipe, "soup", branches, {}, 1);
    if (!does("btx")) return;
    for (const mixture_variant& each : variants_) {
      const std::string untrained = each.name + "-untrained";
      write_mix(graft::btx_recipe, untrained, branches, each.choice, each.experts_per_token);
      training_job btx = job(each.name, "btx", preset_.mix);
      btx.start = model(untrained);
      btx.mixture = each.choice;
      btx.data = training_data(domains_);
      btx.trained = options_.trained;
      train(btx);
    }
  }

  // What the same tokens give without branching: one dense model that sees the mix's tokens, and one that sees all
  // tokens that experts and mix saw together, one after another.
  void train_controls() {
    training_job mix_only = job("dense-mix-tokens", "dense", preset_.mix);
    mix_only.start = model("seed");
    mix_only.data = training_data(domains_);
    train(mix_only);

    graft::training_options all = preset_.mix;
    all.steps = preset_.mix.steps + static_cast<index_t>(branched_.size()) * preset_.expert.steps;
    std::vector<double> weights(domains_.size(),
                                static_cast<double>(preset_.mix.steps) / static_cast<double>(domains_.size()));
    for (const std::size_t domain : branched_) weights[domain] += static_cast<double>(preset_.expert.steps);
    training_job all_tokens = job("dense-all-tokens", "dense", all);
    all_tokens.start = model("seed");
    all_tokens.data = training_data(domains_, weights);
    train(all_tokens);
  }

  result_table evaluate() {
    std::cerr << "evaluation:" << std::flush;
    result_table table;
    for (const graft::corpus& domain : domains_) table.domains.push_back(domain.name);
    table.seed = options_.common.seed;
    table.device = engine_->device();
    table.precision = engine_->precision();
    std::vector<std::string> names{"seed"};
    for (const std::size_t domain : branched_) names.push_back(expert_name(domains_[domain]));
    if (does("soup")) names.emplace_back("soup");
    if (!options_.without_controls) names.insert(names.end(), {"dense-mix-tokens", "dense-all-tokens"});
    if (does("btx")) names.emplace_back("btx-untrained");
    for (const mixture_variant& each : variants_) names.push_back(each.name);
    for (const std::string& name : names) {
      std::cerr << ' ' << name << std::flush;
      table.rows.push_back(make_row(model(name), engine_->evaluate({model(name), held_out_data(domains_),
                                                                    preset_.shape.positions, preset_.eval_tokens})));
    }
    std::cerr << std::endl;
    return table;
  }

  void draw(const result_table& table) const {
    std::vector<loss_curve> curves;
    const double seed_tokens = static_cast<double>(preset_.seed.steps * preset_.seed.tokens_per_step());
    for (const std::string& name : trained_) {
      const double expert_tokens = static_cast<double>(preset_.expert.steps * preset_.expert.tokens_per_step());
      curves.push_back({name, model(name) / "training" / "metrics.jsonl",
                        name == "seed"              ? 0.0
                        : name.rfind("btx", 0) == 0 ? seed_tokens + expert_tokens
                                                    : seed_tokens});
    }
    plot_losses(options_.out / "plots", curves);
    for (const result_row& row : table.rows)
      if (row.name == "btx") plot_routing(options_.out / "plots", table.domains, expert_names_, row.evaluations);
  }

  // Continuations of held-out text, one per domain.
  void sample() {
    const fs::path best = does("btx") ? model("btx") : does("soup") ? model("soup") : model("seed");
    std::ostringstream text;
    for (const graft::corpus& domain : domains_) {
      const graft::token_file held_out(domain.held_out.path);
      std::vector<std::int32_t> tokens(static_cast<std::size_t>(
          std::min<index_t>(held_out.size(), std::min<index_t>(96, preset_.shape.positions / 2))));
      held_out.read(0, tokens);
      tokens.erase(std::find(tokens.begin(), tokens.end(), graft::byte_tokenizer::end_of_text()), tokens.end());
      const std::string prompt = character_stream().take(graft::byte_tokenizer::decode(tokens));
      graft::generation_options generation;
      generation.tokens = preset_.sample_tokens;
      generation.temperature = 0.7;
      generation.seed = options_.common.seed;
      text << "--- " << domain.name << ": " << prompt << " >>> " << engine_->generate(best, prompt, generation, {})
           << "\n";
    }
    graft::write_file(options_.out / "samples.txt", text.str());
    std::cout << best.filename().string() << " continues held-out text after >>>\n" << text.str() << std::endl;
  }

  workflow_options options_;
  preset preset_;
  fs::path program_;
  std::unique_ptr<engine> engine_;
  std::vector<graft::corpus> domains_;
  std::vector<std::size_t> branched_;
  std::vector<std::string> trained_, expert_names_;
  std::vector<mixture_variant> variants_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Branch, train, mix: from one seed and several domains to one mixture-of-experts", "branch_train_mix");
  workflow_options options;
  app.add_option("--preset", options.preset_name, "smoke, quick or full")->capture_default_str();
  app.add_option("--out", options.out, "folder of the run; default: runs/ and the preset's name");
  add_repeatable(app, "--domain", options.domains,
                 "NAME=PATH of text or token files, repeatable; default: four domains of Debian packages");
  add_repeatable(
      app, "--general", options.general,
      "a domain that gets no branch, the seed answers for it; repeatable; default: the first of the default domains");
  app.add_option("--methods", options.methods, "comma-separated: soup, btx")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str()
      ->check(CLI::IsMember({"soup", "btx"}));
  add_trained_flag(app, "--mix-training", options.trained, "what is trained after mixing");
  app.add_option("--experts-per-token", options.experts_per_token, "of the mixture")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--experts", options.experts, experts_help)->capture_default_str();
  add_mixture_flags(app, options.mixture);
  app.add_option("--compare", options.compare,
                 "ROUTER/K+BALANCER+...,...: more mixtures of the same experts, each trained as btx is")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_flag_callback(
      "--list",
      [] {
        print_policies();
        throw CLI::Success();
      },
      "print routers, balancers and layouts, and leave");
  app.add_flag("--without-seed", options.without_seed, "the seed is no expert of the mixture and not in the soup");
  app.add_flag("--without-controls", options.without_controls, "leave out the dense models of the same tokens");
  app.add_option("--jobs", options.jobs, "branches trained at the same time, as processes")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--checkpoint-seconds", options.checkpoint_seconds, "between checkpoints")->capture_default_str();
  add_common_options(app, options.common);
  return run_program(app, argc, argv, [&] {
    if (options.out.empty()) options.out = fs::path("runs") / options.preset_name;
    return workflow(options, fs::read_symlink("/proc/self/exe")).run();
  });
}
