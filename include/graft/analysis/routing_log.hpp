// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The routing of one text at several steps of a training, kept as JSON lines, one snapshot each:
//
//   {"step": 20, "blocks": [{"block": 0, "experts": 4, "slots": 2, "selected": [0, 3, 1, 0]}]}
//
// selected is (T, K) in order of memory. routing_probe writes them while a model is trained.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <graft/analysis/saturation.hpp>
#include <graft/analysis/trace_routing.hpp>
#include <graft/io/atomic_file.hpp>
#include <graft/io/json.hpp>
#include <graft/train/trainer.hpp>

namespace graft {

// One line, without the end of line. Weights are left out.
inline std::string to_json_line(const routing_snapshot& snapshot) {
  std::ostringstream line;
  line << "{\"step\": " << snapshot.step << ", \"blocks\": [";
  for (std::size_t i = 0; i < snapshot.blocks.size(); ++i) {
    const block_routing& block = snapshot.blocks[i];
    line << (i > 0 ? ", " : "") << "{\"block\": " << block.block << ", \"experts\": " << block.experts
         << ", \"slots\": " << block.slots << ", \"selected\": [";
    for (std::size_t slot = 0; slot < block.selected.size(); ++slot)
      line << (slot > 0 ? "," : "") << block.selected[slot];
    line << "]}";
  }
  line << "]}";
  return line.str();
}

// All snapshots of a file, in its order; none when there is no file. A last line that a killed run did not finish is
// left out. Errors: other lines that are not snapshots, with their number.
inline std::vector<routing_snapshot> read_routing_log(const std::filesystem::path& path) {
  std::vector<routing_snapshot> snapshots;
  std::ifstream in(path);
  int number = 0;
  for (std::string line; std::getline(in, line) && !in.eof();) {
    const std::string place = path.string() + " line " + std::to_string(++number);
    const nlohmann::json root = parse_json(line, place);
    routing_snapshot snapshot;
    try {
      snapshot.step = root.at("step").get<index_t>();
      for (const nlohmann::json& item : root.at("blocks")) {
        block_routing block;
        block.block = item.at("block").get<index_t>();
        block.experts = item.at("experts").get<index_t>();
        block.slots = item.at("slots").get<index_t>();
        block.selected = item.at("selected").get<std::vector<std::int32_t>>();
        block.weights.resize(block.selected.size());
        detail::check_block(place.c_str(), block);
        snapshot.blocks.push_back(std::move(block));
      }
    } catch (const nlohmann::json::exception& problem) {
      detail::raise(place, ": expected a snapshot of routing, got ", detail::shown(root), " (", problem.what(), ")");
    }
    snapshots.push_back(std::move(snapshot));
  }
  return snapshots;
}

// Writes the routing of a fixed text before the first step of a training, after every `every` steps and after the last
// one. To be made before the run starts, when the model is what the training starts from, and called as
// run_training(run, source, options, [&](const step_report& report) { probe(report); ... }), which calls it where a
// step reports: `every` should be a multiple of training_options::report_every. A run that is taken up again drops the
// snapshots of the steps that it repeats. The probe has no influence on the training.
// Cost: one forward pass over the text for each snapshot.
template <class Model>
class routing_probe {
 public:
  // text: about a thousand tokens of all domains together. steps: of the whole training. The model must outlive this.
  routing_probe(Model& model, std::vector<std::int32_t> text, index_t positions, index_t every, index_t steps,
                std::filesystem::path path)
      : model_(&model),
        text_(std::move(text)),
        positions_(positions),
        every_(every),
        steps_(steps),
        path_(std::move(path)) {
    GRAFT_CHECK(every >= 1, "routing_probe: expected a snapshot every 1 steps or more, got every=", every);
    const std::vector<routing_snapshot> old = read_routing_log(path_);
    if (old.empty() || old.front().step != 0) {
      write_file(path_, "");
      write(0);
    }
  }

  void operator()(const step_report& report) {
    const index_t done = report.step + 1;
    if (!resumed_) drop_from(done);
    resumed_ = true;
    if (done % every_ == 0 || done == steps_) write(done);
  }

 private:
  void write(index_t step) {
    routing_snapshot snapshot{step, trace_routing(*model_, text_, positions_).blocks};
    std::ofstream out(path_, std::ios::app);
    out << to_json_line(snapshot) << '\n' << std::flush;
    GRAFT_CHECK(out.good(), path_.string(), ": writing failed: is the disk full");
  }
  void drop_from(index_t step) {
    std::string kept;
    for (const routing_snapshot& snapshot : read_routing_log(path_))
      if (snapshot.step < step) kept += to_json_line(snapshot) + "\n";
    write_file(path_, kept);
  }

  Model* model_;
  std::vector<std::int32_t> text_;
  index_t positions_, every_, steps_;
  std::filesystem::path path_;
  bool resumed_ = false;
};

}  // namespace graft
