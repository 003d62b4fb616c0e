// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// What goes into a run's report.

#include "common/report.hpp"

#include <algorithm>
#include <utility>

#include <graft/analysis/report.hpp>
#include <graft/analysis/report_sections.hpp>
#include <graft/io/byte_tokenizer.hpp>

#include "common/traces.hpp"

namespace examples {

namespace detail {

inline graft::report_table table_of(const result_table& table, std::string title, std::string note) {
  graft::report_table page;
  page.title = std::move(title);
  page.note = std::move(note);
  const auto cells = table.cells();
  page.name_header = cells.front().front();
  const std::size_t bits = table.domains.size() + (table.cross.empty() ? 1 : 2);
  for (std::size_t c = 1; c < cells.front().size(); ++c)
    page.columns.push_back(
        {cells.front()[c], c <= bits ? graft::report_best::lowest : graft::report_best::none, 3, ""});
  for (std::size_t r = 1; r < cells.size(); ++r) {
    const result_row& source = table.rows[r - 1];
    graft::report_row row{source.name, "", {}, false};
    const auto group = [](const std::string& method) {
      return method == "seed" || method == "expert" ? 0 : method == "dense" ? 1 : 2;
    };
    row.starts_group = r > 1 && group(source.method) != group(table.rows[r - 2].method);
    for (std::size_t c = 1; c < cells[r].size(); ++c) {
      if (c > bits) {
        row.cells.emplace_back(cells[r][c]);
        continue;
      }
      const std::size_t at = c - 1;  // the average stands behind the domains
      row.cells.emplace_back(at == table.domains.size()
                                 ? source.average()
                                 : source.evaluations[at < table.domains.size() ? at : at - 1].bits_per_byte());
    }
    page.rows.push_back(std::move(row));
  }
  return page;
}

// The tokens of a span alone.
inline graft::routing_trace part_of(const graft::routing_trace& trace, const graft::text_span& span) {
  graft::routing_trace part;
  part.ids.assign(trace.ids.begin() + span.first, trace.ids.begin() + span.last);
  for (graft::block_routing block : trace.blocks) {
    const auto cut = [&](auto& values) {
      values = {values.begin() + span.first * block.slots, values.begin() + span.last * block.slots};
    };
    cut(block.selected);
    cut(block.weights);
    part.blocks.push_back(std::move(block));
  }
  return part;
}

inline std::vector<std::string> pieces_of(const std::vector<std::int32_t>& ids) {
  std::vector<std::string> pieces;
  for (const std::int32_t id : ids) pieces.push_back(graft::byte_tokenizer::decode({&id, 1}));
  return pieces;
}

}  // namespace detail

void write_run_report(engine& engine, const report_input& input, const fs::path& file) {
  graft::report_data data;
  data.title = "branch_train_mix " + input.preset;
  data.facts = {{"preset", input.preset},
                {"device", input.table.device},
                {"precision", input.table.precision},
                {"seed", std::to_string(input.table.seed)}};
  data.tables.push_back(detail::table_of(
      input.table, "Results",
      "Bits per byte on held-out text, lower is better. Peak: resident memory of the process while the row's model was "
      "trained, or for one that is not trained while it was evaluated."));
  if (!input.ablation.rows.empty())
    data.tables.push_back(detail::table_of(input.ablation, "Stitches", "One thing changed in each row."));
  if (!input.curves.empty()) {
    graft::report_chart chart{"training loss", "", "million tokens along the path of the model", "bits per token", {}};
    chart.y_high = 6;
    for (const loss_curve& curve : input.curves) {
      graft::report_curve line = graft::loss_curve(curve.name, curve.metrics, curve.tokens_before);
      if (!line.x.empty()) chart.curves.push_back(std::move(line));
    }
    data.losses.push_back(std::move(chart));
  }

  // Texts: some windows of each domain for what is counted, a window with a piece of each for what is shown.
  const auto domains = static_cast<index_t>(input.texts.size());
  const graft::marked_text shown = excerpts(input.texts, std::max<index_t>(1, input.positions / domains));
  const graft::marked_text counted = excerpts(input.texts, 8 * input.positions);
  const auto has = [&](const std::string& name) {
    return std::any_of(input.table.rows.begin(), input.table.rows.end(),
                       [&](const result_row& row) { return row.name == name; });
  };
  for (const std::string name : {"btx", "bam"}) {
    if (!has(name)) continue;
    const fs::path model = input.models / name;
    const graft::routing_trace trace = engine.routing(model, counted.ids, input.positions);
    const std::vector<std::string>& experts = name == "btx" ? input.experts : input.members;
    std::vector<graft::routing_trace> parts;
    for (const graft::text_span& span : counted.spans) parts.push_back(detail::part_of(trace, span));
    for (graft::report_matrix& map : graft::domain_maps(name, parts, input.table.domains, experts))
      data.shares.push_back(std::move(map));
    for (graft::report_matrix& map : graft::coactivation_maps(trace, experts)) {
      map.title = name + ", " + map.title;
      data.coactivation.push_back(std::move(map));
    }
    if (name == "btx") {
      for (std::size_t i = 0; i < trace.blocks.size(); ++i)
        data.vocabulary.push_back(graft::vocabulary_lists(trace, i, experts, [](std::int32_t id) {
          return graft::byte_tokenizer::decode({&id, 1});
        }));
      data.saturation =
          graft::saturation_chart(graft::saturation_curves(graft::read_routing_log(routing_log_of(model))));
      data.saturation.title = "saturation of " + name;
    }
    graft::routing_trace coloured = engine.routing(model, shown.ids, input.positions);
    data.texts.push_back({name, "", detail::pieces_of(shown.ids), shown.spans, experts, std::move(coloured)});
  }
  for (const std::string name : {"bts", "btm"}) {
    if (!has(name)) continue;
    graft::gate_trace gates = engine.gates(input.models / name, shown.ids);
    if (gates.panels.empty()) continue;
    data.gates.push_back(
        {name,
         name == "bts" ? "share of each member behind each stitch, mean over channels" : "posterior over the members",
         detail::pieces_of(shown.ids), shown.spans, std::move(gates), name == "bts" ? 8 : 1});
  }
  graft::write_report(file, data);
}

}  // namespace examples
