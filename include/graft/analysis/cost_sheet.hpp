// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What models and methods cost, from config.json alone: parameters, FLOPs of a token, bytes. Nothing is allocated.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <graft/analysis/cost_config.hpp>
#include <graft/analysis/cost_methods.hpp>

namespace graft {

// "46.7B", "12.9B", "264M", "15.4k", "640": three digits at most before the unit, one behind the point below 100.
inline std::string number_text(double value, const std::array<const char*, 5>& units) {
  std::size_t unit = 0;
  while (unit + 1 < units.size() && std::abs(value) >= 999.5) value /= 1000.0, ++unit;
  char text[32];
  const bool fraction = unit > 0 && std::abs(value) < 99.95;
  std::snprintf(text, sizeof text, fraction ? "%.1f" : "%.0f", value);
  return std::string(text) + units[unit];
}
inline std::string count_text(double value) { return number_text(value, {"", "k", "M", "B", "T"}); }
inline std::string flops_text(double value) { return number_text(value, {"", "k", "M", "G", "T"}); }
inline std::string bytes_text(double value) { return number_text(value, {"B", "kB", "MB", "GB", "TB"}); }

struct cost_sheet {
  std::vector<cost_row> rows;
  index_t sequences = 1, positions = 1;
  std::string precision = "bf16";

  // Numbers rounded to integers.
  nlohmann::ordered_json to_json() const {
    using json = nlohmann::ordered_json;
    const auto whole = [](double value) { return static_cast<std::int64_t>(std::llround(value)); };
    json root;
    root["rows"] = json::array();
    for (const cost_row& row : rows) {
      json item;
      item["name"] = row.name;
      item["text"] = row.text;
      item["parameters"] = {
          {"total", whole(row.total)}, {"active", whole(row.active)}, {"trained", whole(row.trained)}};
      item["flops_per_token"] = {{"forward", whole(row.forward)}, {"train", whole(row.train)}};
      item["bytes"] = {{"weights", whole(row.weights)},         {"master_weights", whole(row.master_weights)},
                       {"gradients", whole(row.gradients)},     {"optimizer", whole(row.optimizer)},
                       {"activations", whole(row.activations)}, {"total", whole(row.bytes())}};
      item["notes"] = row.notes;
      root["rows"].push_back(std::move(item));
    }
    root["sequences"] = sequences;
    root["positions"] = positions;
    root["precision"] = precision;
    return root;
  }

  std::string to_text() const {
    std::vector<std::vector<std::string>> cells{{"model", "total", "active", "trained", "forward", "train", "weights",
                                                 "master", "gradients", "optimizer", "activations", "all bytes"}};
    const auto or_none = [](double value, std::string text) { return value > 0 ? text : std::string("-"); };
    for (const cost_row& row : rows)
      cells.push_back(
          {row.name, count_text(row.total), count_text(row.active), or_none(row.trained, count_text(row.trained)),
           flops_text(row.forward), or_none(row.train, flops_text(row.train)), bytes_text(row.weights),
           or_none(row.master_weights, bytes_text(row.master_weights)),
           or_none(row.gradients, bytes_text(row.gradients)), or_none(row.optimizer, bytes_text(row.optimizer)),
           bytes_text(row.activations), bytes_text(row.bytes())});
    std::vector<std::size_t> widths(cells.front().size(), 0);
    for (const auto& line : cells)
      for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
    std::ostringstream text;
    for (std::size_t n = 0; n < cells.size(); ++n) {
      std::string line;
      for (std::size_t i = 0; i < cells[n].size(); ++i) {
        const std::string pad(widths[i] - cells[n][i].size(), ' ');
        line += (i > 0 ? "  " : "") + (i == 0 ? cells[n][i] + pad : pad + cells[n][i]);
      }
      text << line << '\n';
      if (n == 0) text << std::string(line.size(), '-') << '\n';
    }
    text << "\nforward, train: FLOPs of a token in sequences of " << positions << ", causal; bytes in " << precision
         << ", activations of a pass of " << sequences << " x " << positions << " tokens\n";
    for (const cost_row& row : rows)
      for (const std::string& note : row.notes) text << row.name << ": " << note << '\n';
    return text.str();
  }
};

namespace detail {

inline cost_sheet empty_sheet(const std::vector<counted_model>& models, const cost_options& options) {
  GRAFT_CHECK(!models.empty(), "cost_sheet: expected at least one model");
  GRAFT_CHECK(options.sequences > 0 && options.positions >= 0,
              "cost_sheet: expected at least one sequence of at least one position, got sequences=", options.sequences,
              ", positions=", options.positions);
  cost_sheet sheet;
  sheet.sequences = options.sequences;
  sheet.positions = options.positions > 0 ? options.positions : 4096;
  sheet.precision = options.precision;
  for (const counted_model& model : models) {
    if (model.shape.positions == 0) continue;  // the file does not say
    if (options.positions == 0) sheet.positions = std::min(sheet.positions, model.shape.positions);
    GRAFT_CHECK(options.positions <= model.shape.positions, model.place, ": expected at most the ",
                model.shape.positions, " positions of max_position_embeddings, got ", options.positions);
  }
  return sheet;
}

}  // namespace detail

// A row for each model, all of it trained.
inline cost_sheet sheet_of_models(const std::vector<counted_model>& models, const cost_options& options) {
  cost_sheet sheet = detail::empty_sheet(models, options);
  for (const counted_model& model : models) {
    const counted_pass pass = detail::pass_of(options, sheet.positions);
    cost_row row = detail::trained_model(model, detail::own_slots(model), pass);
    // Rows are kept for slots, filled or not.
    row.activations = training_activations(model, slots_rule{static_cast<double>(model.experts_per_token)}, pass);
    row.name = model.name;
    row.text = model.family;
    sheet.rows.push_back(std::move(row));
  }
  return sheet;
}

// Names of the methods, in the order of the sheet.
inline std::vector<std::string> cost_method_names() {
  std::vector<std::string> names;
  for (const detail::cost_method& method : detail::cost_methods) names.emplace_back(method.name);
  return names;
}

// A row for each method over the models, the seed first. One model stands for options.models equal ones.
// Errors: an unknown method; models that a method cannot put together, naming the file and the size.
inline cost_sheet sheet_of_methods(const std::vector<counted_model>& models, const std::vector<std::string>& methods,
                                   const cost_options& options) {
  cost_sheet sheet = detail::empty_sheet(models, options);
  GRAFT_CHECK(options.models >= 1 && options.experts_per_token >= 0 && options.rank >= 1,
              "cost_sheet: expected models and rank of at least 1 and experts_per_token of at least 0, got models=",
              options.models, ", rank=", options.rank, ", experts_per_token=", options.experts_per_token);
  detail::method_input input;
  input.models = models;
  if (models.size() == 1) input.models.assign(static_cast<std::size_t>(options.models), models.front());
  input.options = options;
  input.pass = detail::pass_of(options, sheet.positions);
  for (const std::string& name : methods) {
    const auto found = std::find_if(std::begin(detail::cost_methods), std::end(detail::cost_methods),
                                    [&](const detail::cost_method& method) { return method.name == name; });
    GRAFT_CHECK(found != std::end(detail::cost_methods), "cost_sheet: expected a method of ",
                detail::joined(cost_method_names()), ", got ", detail::in_quotes(name));
    detail::check_common_sizes(*found, input.models);
    input.method = name;
    cost_row row = found->row(input);
    row.name = name;
    sheet.rows.push_back(std::move(row));
  }
  return sheet;
}

}  // namespace graft
