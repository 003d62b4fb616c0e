// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The requests of troff, the macros of man, and the tables of tbl: what troff_filter does with a line that is not
// plain text.

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <graft/io/troff.hpp>

namespace graft {

inline void troff_filter::request(std::string_view line) {
  line.remove_prefix(1);
  line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  if (line.empty() || line.starts_with("\\}")) return;
  std::size_t end = 0;
  while (end < line.size() && line[end] != ' ' && line[end] != '\t' && line[end] != '\\') ++end;
  const std::string name(line.substr(0, end));
  std::string_view rest = line.substr(end);
  if (conditional(name, rest)) return;
  if (rest.ends_with("\\}")) rest.remove_suffix(2);
  const std::vector<std::string> arguments = detail::troff_arguments(rest);
  if (name == "EN") equation_ = false;
  if (equation_ || definition(name, rest, arguments)) return;
  if (structure(name, arguments) || inline_macro(name, arguments)) return;
  if (macros_.contains(name)) return call(name, arguments);
  if (mdoc(name, arguments)) return;
  // What is left are requests about looks, in lower case, which have no text, and macros we know nothing of, which do.
  static constexpr std::string_view silent[] = {"TH", "PD", "DT", "UC", "AT", "IX",
                                                "Os", "Dt", "XX", "EQ", "EN", "LINKSTYLE"};
  if (std::find(std::begin(silent), std::end(silent), name) != std::end(silent) || name.empty()) return;
  if (name[0] >= 'A' && name[0] <= 'Z') emit_rendered(joined(arguments, " "));
}

// .if, .ie and .el. True when the line was one of them.
inline bool troff_filter::conditional(std::string_view name, std::string_view rest) {
  const bool is_if = name == "if", is_ie = name == "ie";
  if (!is_if && !is_ie && name != "el") return false;
  bool taken = false;
  if (is_if || is_ie) {
    taken = true_condition(rest);
    if (is_ie && else_.size() < 64) else_.push_back(!taken);
  } else if (!else_.empty()) {
    taken = else_.back();
    else_.pop_back();
  }
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
  if (rest.starts_with("\\{")) {
    rest.remove_prefix(2);
    rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
    if (!taken) {
      skip_depth_ = 1;
      process(rest);
      return true;
    }
  }
  if (taken && !rest.empty() && ++call_depth_ <= 32) process(rest);
  if (taken && !rest.empty()) --call_depth_;
  return true;
}

// Evaluates the condition at the front of rest and removes it: n, t, 'a'b', N, N=M, N>M, N<M, each with ! before it.
inline bool troff_filter::true_condition(std::string_view& rest) {
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
  bool negate = false;
  for (; rest.starts_with('!'); rest.remove_prefix(1)) negate = !negate;
  if (rest.empty()) return false;
  bool value = false;
  if (rest[0] == '\'' || rest[0] == '"') {
    const char delimiter = rest[0];
    const std::string_view left = detail::troff_delimited(rest);
    const std::size_t end = std::min(rest.find(delimiter), rest.size());
    value = detail::render_troff(left, state_).text == detail::render_troff(rest.substr(0, end), state_).text;
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return value != negate;
  }
  const std::size_t end = std::min(rest.find_first_of(" \t"), rest.size());
  const std::string_view block = rest.substr(0, end);
  const std::size_t brace = std::min(block.find("\\{"), end);
  const std::string condition = detail::render_troff(rest.substr(0, brace), state_).text;
  rest.remove_prefix(brace);
  if (condition == "n" || condition == "o") return !negate;
  const auto number = [&](std::size_t at) {
    return std::strtol(condition.c_str() + std::min(at, condition.size()), nullptr, 10);
  };
  const std::size_t compare = condition.find_first_of("=<>");
  if (compare == std::string::npos) return (number(0) > 0) != negate;
  const std::size_t right = condition.find_first_not_of("=<>", compare);
  const long a = number(0), b = number(right == std::string::npos ? condition.size() : right);
  value = condition[compare] == '=' ? a == b : condition[compare] == '<' ? a < b : a > b;
  return value != negate;
}

// Requests that define, and those whose text is not the page's. True when name was one of them.
inline bool troff_filter::definition(const std::string& name, std::string_view rest,
                                     const std::vector<std::string>& arguments) {
  if (name == "de" || name == "de1" || name == "am") {
    defining_ = true;
    definition_ = arguments.empty() ? std::string() : arguments[0];
    if (const auto found = macros_.find(definition_); name == "am" && found != macros_.end()) body_ = found->second;
  } else if (name == "ig") {
    ignoring_ = true;
  } else if (name == "ds" && !arguments.empty()) {
    rest.remove_prefix(std::min(rest.find(arguments[0]) + arguments[0].size(), rest.size()));
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    if (rest.starts_with('"')) rest.remove_prefix(1);
    state_.strings[arguments[0]] = std::string(rest);
  } else if (name == "nr" && arguments.size() > 1) {
    state_.registers[arguments[0]] = std::strtol(arguments[1].c_str(), nullptr, 10);
  } else if (name == "als" && arguments.size() > 1) {
    if (const auto found = macros_.find(arguments[1]); found != macros_.end()) {
      const std::vector<std::string> body = found->second;
      macros_[arguments[0]] = body;
    }
  } else if (name == "rm" && !arguments.empty()) {
    macros_.erase(arguments[0]);
    state_.strings.erase(arguments[0]);
  } else if (name == "so" || name == "mso") {
    saw_include_ |= name == "so";
  } else if (name == "EQ") {
    equation_ = true;
  } else {
    return false;
  }
  return true;
}

// Macros that shape the page. True when name was one of them.
inline bool troff_filter::structure(const std::string& name, const std::vector<std::string>& arguments) {
  const auto is = [&](auto... names) { return ((name == names) || ...); };
  if (is("SH", "SS", "Sh", "Ss")) {
    heading_next_ = arguments.empty();
    if (!arguments.empty()) heading(joined(arguments, " "));
  } else if (is("PP", "P", "LP", "HP", "Pp", "Sp", "sp")) {
    paragraph();
  } else if (is("br", "RS", "RE", "in", "ti", "ce", "fi", "EE", "nf", "EX", "YS")) {
    line_break();
    if (is("fi", "EE")) fill_ = true;
    if (is("nf", "EX")) fill_ = false;
  } else if (is("TP", "TQ")) {
    is("TP") ? paragraph() : line_break();
    tag_next_ = true;
  } else if (is("IP")) {
    paragraph();
    if (!arguments.empty() && !arguments[0].empty()) {
      tag_next_ = true;
      emit_rendered(arguments[0]);
    }
  } else if (is("TS")) {
    paragraph();
    table_ = table_state::format;
    table_separator_ = '\t';
  } else if (is("TE")) {
    if (table_ == table_state::block) table_line("T}");
    table_ = table_state::none;
    paragraph();
  } else if (is("T&")) {
    if (table_ != table_state::none) table_ = table_state::format;
  } else {
    return false;
  }
  return true;
}

// Macros whose arguments are text of the line. True when name was one of them.
inline bool troff_filter::inline_macro(const std::string& name, const std::vector<std::string>& arguments) {
  const auto is = [&](auto... names) { return ((name == names) || ...); };
  const auto argument = [&](std::size_t i) { return i < arguments.size() ? arguments[i] : std::string(); };
  if (is("B", "I", "SM", "SB", "R", "CW", "nop")) {
    if (!arguments.empty()) emit_rendered(joined(arguments, " "));
  } else if (is("BR", "RB", "BI", "IB", "IR", "RI")) {
    if (!arguments.empty()) emit_rendered(joined(arguments, ""));
  } else if (is("UR", "MT")) {
    link_ = argument(0);
  } else if (is("UE", "ME")) {
    const std::string address = detail::render_troff(std::exchange(link_, {}), state_).text;
    if (!address.empty()) emit("<" + address + ">");
    attach(detail::render_troff(argument(0), state_).text);
  } else if (is("SY")) {
    line_break();
    emit_rendered(argument(0));
  } else if (is("OP")) {
    emit_rendered("[" + joined(arguments, " ") + "]");
  } else if (is("MR")) {
    emit_rendered(argument(0) + "(" + argument(1) + ")" + argument(2));
  } else {
    return false;
  }
  return true;
}

// A macro that the page itself defines: its lines with \\$1 to \\$9 and \\$* replaced.
inline void troff_filter::call(const std::string& name, const std::vector<std::string>& arguments) {
  if (call_depth_ >= 8 || state_.budget <= 0) return;
  ++call_depth_;
  const std::vector<std::string> body = macros_[name];
  for (const std::string& source : body) {
    if (--state_.budget <= 0) break;
    std::string line;
    for (std::size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\\' && i + 1 < source.size()) {
        const std::size_t dollar = source[i + 1] == '\\' ? i + 2 : i + 1;
        if (dollar + 1 < source.size() && source[dollar] == '$') {
          const char which = source[dollar + 1];
          if (which >= '1' && which <= '9' && static_cast<std::size_t>(which - '0') <= arguments.size())
            line += arguments[static_cast<std::size_t>(which - '1')];
          if (which == '*' || which == '@') line += joined(arguments, " ");
          i = dollar + 1;
          continue;
        }
        if (source[i + 1] == '\\')
          ++i;  // a definition is read once more than a line
        else
          line += source[i++];
      }
      line += source[i];
      if (line.size() > longest_line) break;
    }
    process(line);
  }
  --call_depth_;
}

inline void troff_filter::table_line(std::string_view line) {
  if (table_ == table_state::format) {
    const std::size_t last = line.find_last_not_of(" \t");
    if (last == std::string_view::npos) return;
    if (line[last] == ';') {
      const std::size_t tab = line.find("tab");
      const std::size_t open = tab == std::string_view::npos ? tab : line.find('(', tab);
      if (open != std::string_view::npos && open + 1 < line.size()) table_separator_ = line[open + 1];
    } else if (line[last] == '.') {
      table_ = table_state::rows;
    }
    return;
  }
  if (table_ == table_state::block) {
    if (!line.starts_with("T}")) return emit_rendered(line);
    row_.push_back(std::exchange(cell_, {}));
    table_ = table_state::rows;
    line.remove_prefix(2);
    if (line.starts_with(table_separator_)) return table_cells(line.substr(1));
    line = {};
    return table_cells(line);
  }
  if (line != "_" && line != "=") table_cells(line);
}

// Adds cells to the row; a last cell of T{ goes on in the next lines.
inline void troff_filter::table_cells(std::string_view cells) {
  const bool closed_by_block = cells.data() == nullptr;
  while (!closed_by_block) {
    const std::size_t end = std::min(cells.find(table_separator_), cells.size());
    const std::string_view cell = cells.substr(0, end);
    if (end == cells.size() && cell.starts_with("T{")) {
      table_ = table_state::block;
      return;
    }
    const bool is_rule = cell == "_" || cell == "=" || cell == "\\_" || cell == "\\=" || cell == "\\^";
    row_.push_back(is_rule ? std::string() : detail::render_troff(cell, state_).text);
    if (end == cells.size()) break;
    cells.remove_prefix(end + 1);
  }
  while (!row_.empty() && row_.back().empty()) row_.pop_back();
  const bool fills = std::exchange(fill_, false);
  if (!row_.empty()) emit(joined(row_, " | "));
  fill_ = fills;
  row_.clear();
}

}  // namespace graft
