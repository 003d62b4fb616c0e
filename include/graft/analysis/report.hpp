// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// report.html: one page about a run that opens in any browser, from plain data. Everything is in the file: no network,
// no scripts; pictures are inline SVG, weights stand on hover, layers are chosen with radio buttons.
//
//   graft::report_data data;
//   data.title = "quick";
//   data.tables.push_back(...);
//   graft::write_report("runs/quick/report.html", data);

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include <graft/analysis/markup.hpp>
#include <graft/analysis/report_data.hpp>
#include <graft/analysis/report_style.hpp>
#include <graft/analysis/svg.hpp>
#include <graft/io/atomic_file.hpp>

namespace graft {

namespace detail {

inline std::string tagged(const std::string& name, const std::string& attributes, const std::string& content) {
  return "<" + name + (attributes.empty() ? "" : " " + attributes) + ">" + content + "</" + name + ">";
}
inline std::string note_of(const std::string& note) {
  return note.empty() ? "" : tagged("p", "class=\"note\"", escaped(note));
}

// ---- table ---------------------------------------------------------------------------------------
inline std::string table_html(const report_table& table) {
  std::vector<double> best(table.columns.size(), std::numeric_limits<double>::quiet_NaN());
  for (const report_row& row : table.rows) {
    GRAFT_CHECK(row.cells.size() == table.columns.size(), "report: expected ", table.columns.size(),
                " cells in the row ", row.name, ", got ", row.cells.size());
    for (std::size_t c = 0; c < best.size(); ++c) {
      const double value = row.cells[c].value;
      const bool better = table.columns[c].best == report_best::lowest ? value < best[c] : value > best[c];
      if (std::isfinite(value) && (std::isnan(best[c]) || better)) best[c] = value;
    }
  }
  std::string head = tagged("th", "scope=\"col\"", escaped(table.name_header));
  for (const report_column& column : table.columns)
    head += tagged("th",
                   std::string("scope=\"col\"") + (column.best != report_best::none ? " class=\"mark\"" : "") +
                       (column.note.empty() ? "" : " title=\"" + escaped(column.note) + "\""),
                   escaped(column.name));
  std::string body;
  for (const report_row& row : table.rows) {
    std::string line = tagged("th", "scope=\"row\"",
                              escaped(row.name) + (row.note.empty() ? "" : tagged("small", "", escaped(row.note))));
    for (std::size_t c = 0; c < row.cells.size(); ++c) {
      const report_cell& cell = row.cells[c];
      const report_column& column = table.columns[c];
      std::string shown = escaped(cell.text);
      if (shown.empty() && std::isfinite(cell.value)) shown = fixed_number(cell.value, column.digits);
      const bool marks = column.best != report_best::none;
      if (shown.empty())
        line += tagged("td", marks ? "class=\"none mark\"" : "class=\"none\"", "&#8211;");
      else if (marks && cell.value == best[c])
        line += tagged("td", "", tagged("b", "", shown));
      else
        line += tagged("td", marks ? "class=\"mark\"" : "", shown);
    }
    body += tagged("tr", row.starts_group ? "class=\"group\"" : "", line);
  }
  return (table.title.empty() ? "" : tagged("h3", "", escaped(table.title))) + note_of(table.note) +
         tagged("div", "class=\"scroll\"",
                tagged("table", "", tagged("thead", "", tagged("tr", "", head)) + tagged("tbody", "", body)));
}

// ---- pictures ------------------------------------------------------------------------------------
inline std::string figure(const std::string& caption, const std::string& picture) {
  return tagged("figure", "", (caption.empty() ? "" : tagged("figcaption", "", escaped(caption))) + picture);
}
// Maps of one width side by side: as many in a row as leave room for numbers, and rows as even as can be.
inline std::string maps_row(const std::vector<const report_matrix*>& maps) {
  constexpr double page = 1032, gap = 24, number = 44;
  if (maps.empty()) return "";
  double widest = 1;
  for (const report_matrix* map : maps)
    widest = std::max(widest, heat_map_margin(*map) + number * static_cast<double>(map->columns.size()));
  const auto most = static_cast<std::size_t>(std::clamp((page + gap) / (widest + gap), 1.0, 6.0));
  const std::size_t rows = (maps.size() + most - 1) / most, each = (maps.size() + rows - 1) / rows;
  std::string html;
  for (const report_matrix* map : maps)
    html += figure(map->title, heat_map(*map, (page + gap) / static_cast<double>(each) - gap));
  return tagged("div", "class=\"maps\" style=\"--n:" + std::to_string(each) + "\"", html);
}
inline std::string maps_html(const std::vector<report_matrix>& matrices) {
  std::string html;
  std::vector<const report_matrix*> run;
  for (const report_matrix& matrix : matrices) {
    if (matrix.values.values.empty()) continue;
    if (!run.empty() && run.front()->columns.size() != matrix.columns.size()) {
      html += maps_row(run);
      run.clear();
    }
    run.push_back(&matrix);
  }
  return html + maps_row(run);
}

// One of several pages, chosen by name: radio buttons and the style sheet do it. group: unique on the page.
inline std::string tabs_html(const std::string& group, const std::vector<std::string>& names,
                             const std::vector<std::string>& pages, std::size_t first) {
  std::string html;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string id = group + "-" + std::to_string(i);
    html += "<input type=\"radio\" name=\"" + group + "\" id=\"" + id + "\"" +
            (i == first ? " checked=\"checked\"" : "") + "/>" +
            tagged("label", "for=\"" + id + "\"", escaped(names[i]));
  }
  for (const std::string& page : pages) html += tagged("div", "", page);
  return tagged("div", "class=\"tabs\"", html);
}
inline std::string tab_rules(std::size_t most) {
  std::string rules;
  for (std::size_t i = 1; i <= most; ++i)
    rules += (i > 1 ? "," : "") + (".tabs>input:nth-of-type(" + std::to_string(i)) + "):checked~div:nth-of-type(" +
             std::to_string(i) + ")";
  return rules.empty() ? "" : rules + "{display:block}";
}

inline std::string gates_html(const report_gates& data) {
  if (data.gates.panels.empty()) return "";
  std::string html = (data.title.empty() ? "" : tagged("h3", "", escaped(data.title))) + note_of(data.note);
  std::string key;
  const std::vector<std::string> names = series_names(data.gates);
  for (std::size_t i = 0; i < names.size(); ++i)
    key += tagged(
        "span", "",
        "<svg viewBox=\"0 0 26 10\" aria-hidden=\"true\">" + legend_line(0, 5, i) + "</svg>" + escaped(names[i]));
  html += tagged("div", "class=\"key\"", key);
  const std::size_t count = data.gates.panels.size();
  for (std::size_t i = 0; i < count; ++i)
    html += figure(data.gates.panels[i].title, gate_chart(data, i, i == 0, i + 1 == count));
  return html;
}

// ---- words and texts -----------------------------------------------------------------------------
inline std::string vocabulary_html(const report_vocabulary& data) {
  std::string html;
  if (data.types > 0)
    html += tagged("p", "",
                   "Mean over the " + std::to_string(data.types) +
                       " different tokens, of the share that goes to the expert that gets most of it: " +
                       tagged("b", "", percent(data.mean)) + ".");
  std::string lists;
  for (const report_words& expert : data.experts) {
    std::string items;
    for (const report_word& word : expert.words)
      items +=
          tagged("li", "title=\"" + std::to_string(word.occurrences) + " occurrences\"",
                 tagged("code", "", shown_pieces({word.bytes}).front().text) +
                     tagged("i", "style=\"--w:" + fixed_number(100 * std::clamp(word.share, 0.0, 1.0), 0) + "%\"", "") +
                     tagged("small", "", percent(word.share)));
    if (items.empty()) items = tagged("li", "", tagged("small", "", "none often enough"));
    lists += tagged("div", "", tagged("h3", "", escaped(expert.expert)) + tagged("ol", "", items));
  }
  return html + tagged("div", "class=\"lists\"", lists);
}

// One layer of a text: a span for each token.
inline std::string coloured_text(const report_text& data, const block_routing& block,
                                 const std::vector<shown_piece>& pieces) {
  std::vector<text_span> spans = data.spans;
  if (spans.empty()) spans.push_back({"", 0, static_cast<index_t>(pieces.size())});
  std::string html;
  for (const text_span& span : spans) {
    if (!span.name.empty()) html += tagged("h3", "", escaped(span.name));
    std::string text;
    for (index_t token = span.first; token < span.last; ++token) {
      const shown_piece& piece = pieces.at(static_cast<std::size_t>(token));
      const std::int32_t main = block.main_expert(token);
      std::string title;
      for (const index_t slot : block.ranked(token))
        title += (title.empty() ? "" : ", ") +
                 escaped(data.experts.at(static_cast<std::size_t>(block.expert(token, slot)))) + " " +
                 fixed_number(static_cast<double>(block.weight(token, slot)), 2);
      if (title.empty()) title = "no expert";
      if (piece.continues) title = "rest of the character before: " + title;
      std::string name = "t";
      if (main >= 0) name += " e" + std::to_string(static_cast<std::size_t>(main) % report_colours);
      if (piece.continues) name += " rest";
      if (piece.ends_line) name += " w";
      text += tagged("span", "class=\"" + name + "\" title=\"" + title + "\"", piece.text);
      if (piece.ends_line) text += "\n";
    }
    html += tagged("div", "class=\"text\"", text);
  }
  return html;
}

inline std::string text_html(const report_text& data, const std::string& group) {
  if (data.routing.blocks.empty() || data.pieces.empty()) return "";
  const std::vector<shown_piece> pieces = shown_pieces(data.pieces);
  std::string html = (data.title.empty() ? "" : tagged("h3", "", escaped(data.title))) + note_of(data.note);
  std::string key;
  for (std::size_t i = 0; i < data.experts.size(); ++i)
    key += tagged("span", "class=\"t e" + std::to_string(i % report_colours) + "\"", escaped(data.experts[i]));
  html += tagged("div", "class=\"key\"", key);
  std::vector<std::string> names, pages;
  for (const block_routing& block : data.routing.blocks) {
    check_block("report", block);
    GRAFT_CHECK(block.tokens() == static_cast<index_t>(pieces.size()) &&
                    block.experts == static_cast<index_t>(data.experts.size()),
                "report: expected the routing of ", pieces.size(), " tokens to ", data.experts.size(),
                " experts, got that of ", block.tokens(), " tokens to ", block.experts);
    names.push_back("layer " + std::to_string(block.block));
    pages.push_back(coloured_text(data, block, pieces));
  }
  return html + tabs_html(group, names, pages, names.size() / 2);
}

}  // namespace detail

// The page. Order of sections: results, losses, where tokens go, a text and its experts, gates, co-activation,
// specialization, saturation. Errors: rows, matrices and texts whose sizes do not fit their names.
inline std::string report_html(const report_data& data) {
  using namespace detail;
  struct part {
    const char *id, *title;
    std::string note, content;
  };
  std::vector<part> parts;
  const auto add = [&](const char* id, const char* title, const std::string& note, const std::string& content) {
    if (!content.empty()) parts.push_back({id, title, note, content});
  };

  std::string content;
  for (const report_table& table : data.tables)
    if (!table.rows.empty()) content += table_html(table);
  add("results", "Results", "", content);

  content.clear();
  for (const report_text& text : data.texts)
    content += text_html(text, "text" + std::to_string(&text - data.texts.data()));
  add("text", "Which expert works on which token",
      "Every token has the colour and the underline of the expert with the largest weight. All weights of a token "
      "stand on hover. A character that is several tokens long stands in its first, the others are narrow.",
      content);

  content.clear();
  for (const report_gates& gates : data.gates) content += gates_html(gates);
  add("gates", "Gates along a text",
      "How much say each part of a model has, token by token, on a text that changes its domain on the way.", content);

  content = maps_html(data.shares);
  add("shares", "Where the tokens of each domain go",
      "The share of a domain's tokens that each expert of each layer is selected for: with k experts for each token a "
      "row sums to k. Where all experts work on every token, the mean of their weights.",
      content);

  content.clear();
  for (const report_chart& chart : data.losses)
    if (!chart.curves.empty()) content += note_of(chart.note) + figure(chart.title, line_chart(chart));
  add("losses", "Training", "", content);

  content.clear();
  if (!data.saturation.curves.empty())
    content = note_of(data.saturation.note) + figure(data.saturation.title, line_chart(data.saturation));
  add("saturation", "Saturation of the routers",
      "How many of the experts that a token has in the end it had at an earlier step already, on a fixed text.",
      content);

  content = maps_html(data.coactivation);
  add("coactivation", "Experts that work together",
      "Of the tokens of the expert of a row, the share that the expert of a column works on too.", content);

  content.clear();
  if (!data.vocabulary.empty()) {
    std::vector<std::string> names, pages;
    for (const report_vocabulary& each : data.vocabulary) {
      names.push_back(each.title);
      pages.push_back(vocabulary_html(each));
    }
    content = tabs_html("vocabulary", names, pages, names.size() / 2);
  }
  add("vocabulary", "Tokens of each expert",
      "Of all occurrences of a token, the share that the expert is selected for; the most specific tokens of each "
      "expert.",
      content);

  std::size_t most_tabs = data.vocabulary.size();
  for (const report_text& text : data.texts) most_tabs = std::max(most_tabs, text.routing.blocks.size());
  std::string facts, links, sections;
  for (const report_fact& fact : data.facts)
    facts += tagged("div", "", tagged("dt", "", escaped(fact.name)) + tagged("dd", "", escaped(fact.value)));
  for (const part& each : parts) {
    links += tagged("a", "href=\"#" + std::string(each.id) + "\"", each.title) + "\n";
    sections += tagged("section", "id=\"" + std::string(each.id) + "\"",
                       tagged("h2", "", each.title) + note_of(each.note) + each.content) +
                "\n";
  }
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" "
         "content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n" +
         tagged("title", "", escaped(data.title)) + "\n" + tagged("style", "", report_style + tab_rules(most_tabs)) +
         "\n</head>\n<body>\n<main>\n<header>\n" + tagged("h1", "", escaped(data.title)) +
         (data.subtitle.empty() ? "" : tagged("p", "class=\"sub\"", escaped(data.subtitle))) +
         (facts.empty() ? "" : tagged("dl", "class=\"facts\"", facts)) +
         (parts.size() > 1 ? tagged("nav", "aria-label=\"Sections\"", links) : "") + "\n</header>\n" + sections +
         "</main>\n</body>\n</html>\n";
}

// Writes report_html(data) to `path`, whole or not at all. Errors: those of report_html, what the disk says.
inline void write_report(const std::filesystem::path& path, const report_data& data) {
  write_file(path, report_html(data));
}

}  // namespace graft
