// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "common/evaluations.hpp"

#include <sstream>
#include <string>
#include <vector>

#include <graft/io/atomic_file.hpp>
#include <graft/io/json.hpp>
#include <graft/io/token_file.hpp>

#include "common/folder.hpp"

namespace examples {

namespace detail {

nlohmann::json to_json(const graft::evaluation& e) {
  nlohmann::json load = nlohmann::json::array();
  for (const graft::layer_load& block : e.load)
    load.push_back({{"counts", block.counts},
                    {"empty_slots", block.empty_slots},
                    {"dropped_slots", block.dropped_slots},
                    {"tokens", block.tokens},
                    {"entropy_sum", block.entropy_sum}});
  return {{"nats", e.nats}, {"tokens", e.tokens}, {"bytes", e.bytes}, {"seconds", e.seconds}, {"load", load}};
}

graft::evaluation parse_evaluation(const nlohmann::json& root) {
  graft::evaluation e;
  e.nats = root.at("nats");
  e.tokens = root.at("tokens");
  e.bytes = root.at("bytes");
  e.seconds = root.at("seconds");
  for (const nlohmann::json& each : root.at("load")) {
    graft::layer_load block;
    block.counts = each.at("counts").get<std::vector<double>>();
    block.empty_slots = each.at("empty_slots");
    block.dropped_slots = each.at("dropped_slots");
    block.tokens = each.at("tokens");
    block.entropy_sum = each.at("entropy_sum");
    e.load.push_back(std::move(block));
  }
  return e;
}

}  // namespace detail

evaluation_result evaluate_once(engine& engine, const evaluation_job& job, const fs::path& file) {
  std::ostringstream text;
  text << origin_value(origin_of(job.model), job.model, "signature", std::string("unknown")) << ' ' << job.positions
       << ' ' << job.max_tokens << ' ' << engine.device() << ' ' << engine.precision();
  for (const held_out_domain& domain : job.domains)
    text << ' ' << domain.name << ' ' << graft::token_file(domain.path).size();
  const std::string key = text.str();
  try {
    if (fs::exists(file)) {
      const nlohmann::json root = graft::read_json_file(file);
      if (root.at("job") == key) {
        evaluation_result result;
        for (const nlohmann::json& each : root.at("domains")) result.domains.push_back(detail::parse_evaluation(each));
        result.peak_bytes = root.at("peak_memory_bytes");
        if (result.domains.size() == job.domains.size()) return result;
      }
    }
  } catch (const graft::error&) {
  } catch (const nlohmann::json::exception&) {}
  const evaluation_result result = engine.evaluate(job);
  nlohmann::json root = {{"job", key}, {"peak_memory_bytes", result.peak_bytes}, {"domains", nlohmann::json::array()}};
  for (const graft::evaluation& each : result.domains) root["domains"].push_back(detail::to_json(each));
  fs::create_directories(file.parent_path());
  graft::write_file(file, root.dump(1) + "\n");
  return result;
}

}  // namespace examples
