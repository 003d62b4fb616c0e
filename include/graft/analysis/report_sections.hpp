// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// From measurements to the parts of a report: heat maps of domains, saturation and co-activation, lists of tokens,
// curves of a training.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include <graft/analysis/coactivation.hpp>
#include <graft/analysis/markup.hpp>
#include <graft/analysis/report_data.hpp>
#include <graft/analysis/saturation.hpp>
#include <graft/analysis/specialization.hpp>
#include <graft/io/json.hpp>

namespace graft {

// A map for each domain: rows are the blocks with experts, columns the experts. load: of every domain, what evaluate()
// returns. Nothing for a dense model. full: the share of the strongest shade. Errors: names that do not fit.
inline std::vector<report_matrix> share_maps(const std::vector<std::string>& domains,
                                             const std::vector<std::string>& experts,
                                             const std::vector<std::vector<layer_load>>& load) {
  GRAFT_CHECK(domains.size() == load.size(), "share_maps: expected the load of ", domains.size(), " domains, got ",
              load.size());
  std::vector<report_matrix> maps;
  for (std::size_t d = 0; d < domains.size(); ++d) {
    report_matrix map;
    map.title = domains[d];
    map.columns = experts;
    map.column_label = "expert";
    for (std::size_t block = 0; block < load[d].size(); ++block) {
      if (load[d][block].counts.empty()) continue;
      const share_matrix row = domain_specialization(std::vector<layer_load>{load[d][block]});
      GRAFT_CHECK(row.columns == static_cast<index_t>(experts.size()), "share_maps: expected names of ", row.columns,
                  " experts, got ", experts.size());
      map.rows.push_back("layer " + std::to_string(block));
      map.values.values.insert(map.values.values.end(), row.values.begin(), row.values.end());
    }
    if (map.rows.empty()) continue;
    map.values.rows = static_cast<index_t>(map.rows.size());
    map.values.columns = static_cast<index_t>(experts.size());
    maps.push_back(std::move(map));
  }
  return maps;
}

// A map of domains and experts for each block of the traces, one trace for each domain: the share of the tokens, or the
// mean weight where all experts work on every token, which the title says. Errors: names that do not fit,
// those of domain_specialization.
inline std::vector<report_matrix> domain_maps(const std::string& model, const std::vector<routing_trace>& traces,
                                              const std::vector<std::string>& domains,
                                              const std::vector<std::string>& experts) {
  std::vector<report_matrix> maps;
  for (std::size_t i = 0; !traces.empty() && i < traces.front().blocks.size(); ++i) {
    const bool all = std::all_of(traces.begin(), traces.end(), [&](const routing_trace& trace) {
      return i < trace.blocks.size() && trace.blocks[i].all_selected();
    });
    GRAFT_CHECK(traces.front().blocks[i].experts == static_cast<index_t>(experts.size()),
                "domain_maps: expected names of ", traces.front().blocks[i].experts, " experts, got ", experts.size());
    maps.push_back({model + ", layer " + std::to_string(traces.front().blocks[i].block) + (all ? ", mean weight" : ""),
                    "domain", "expert", domains, experts,
                    domain_specialization(traces, i, all ? domain_share::weights : domain_share::tokens), 1});
  }
  return maps;
}

// A map for each block with experts of a trace. Nothing where one expert works on a token, or all do: every row would
// say 0, or 1.
inline std::vector<report_matrix> coactivation_maps(const routing_trace& trace, const std::vector<std::string>& experts,
                                                    coactivation_pairs pairs = coactivation_pairs::all) {
  std::vector<report_matrix> maps;
  for (const block_routing& block : trace.blocks) {
    if (block.slots < 2 || block.all_selected()) continue;
    maps.push_back({"layer " + std::to_string(block.block), "", "", experts, experts, coactivation(block, pairs), 1});
    share_matrix& values = maps.back().values;  // an expert beside itself says nothing
    for (index_t i = 0; i < values.rows; ++i) values(i, i) = std::numeric_limits<double>::quiet_NaN();
  }
  return maps;
}

// A curve for each block, and chance where it is the same for all.
inline report_chart saturation_chart(const std::vector<saturation_curve>& curves) {
  report_chart chart;
  chart.x_label = "steps of the training";
  chart.y_label = "experts of the last step";
  chart.percent = true;
  chart.y_low = 0;
  chart.y_high = 1;
  for (const saturation_curve& curve : curves)
    chart.curves.push_back({"layer " + std::to_string(curve.block), curve.steps, curve.values});
  if (!curves.empty()) chart.note = "Chance is " + fixed_number(100 * curves.front().chance, 0) + "%.";
  return chart;
}

// The lists of the entry `index` of a trace's blocks. bytes_of: the text of a token id.
inline report_vocabulary vocabulary_lists(const routing_trace& trace, std::size_t index,
                                          const std::vector<std::string>& experts,
                                          const std::function<std::string(std::int32_t)>& bytes_of,
                                          const vocabulary_options& options = {}) {
  const vocabulary_report measured = vocabulary_specialization(trace, index, options);
  GRAFT_CHECK(measured.lists.size() == experts.size(), "vocabulary_lists: expected names of ", measured.lists.size(),
              " experts, got ", experts.size());
  report_vocabulary lists{"layer " + std::to_string(trace.blocks[index].block), measured.mean, measured.types, {}};
  for (std::size_t i = 0; i < experts.size(); ++i) {
    report_words words{experts[i], {}};
    for (const specific_token& token : measured.lists[i])
      words.words.push_back({bytes_of(token.id), token.share, token.occurrences});
    lists.experts.push_back(std::move(words));
  }
  return lists;
}

// The training loss of a run from its metrics.jsonl, a running mean of up to `window` steps: bits for each token over
// million tokens. tokens_before: that the model has seen before. Empty when there is no file.
inline report_curve loss_curve(const std::string& name, const std::filesystem::path& metrics, double tokens_before = 0,
                               int window = 10) {
  report_curve curve{name, {}, {}};
  std::ifstream in(metrics);
  double tokens = tokens_before, mean = 0;
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json step = parse_json(line, metrics.string() + " line " + std::to_string(++number));
    GRAFT_CHECK(step.contains("tokens") && step.contains("loss"), metrics.string(), " line ", number,
                ": expected the metrics of a step with tokens and loss, got ", detail::shown(step));
    tokens += step["tokens"].get<double>();
    const double bits = step["loss"].get<double>() / std::numbers::ln2;
    mean = number == 1 ? bits : mean + (bits - mean) / std::min(number, window);
    curve.x.push_back(tokens / 1e6);
    curve.y.push_back(mean);
  }
  return curve;
}

}  // namespace graft
