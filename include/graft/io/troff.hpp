// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Manual pages to readable text: a filter for troff with the man macros (and the common mdoc ones, see
// troff_mdoc.hpp). It keeps the words and the structure and drops the looks:
//
//   * a section or subsection title stands on its own line, after a blank line;
//   * a paragraph is one line; paragraphs, list items and tables are separated by blank lines;
//   * a list item is its tag, then the text: on the same line after a short tag (a bullet), else on the next;
//   * examples (.nf, .EX) keep their lines; the cells of a table are joined by " | ";
//   * comments, headers, fonts and sizes vanish; special characters and accents become UTF-8;
//   * the sections TRADUCTION and COLOPHON, the same licence note on every page, are left out;
//   * a page that only includes another (.so) gives nothing.
//
// Conditionals are evaluated as nroff with groff's extensions would, strings and a page's own macros are
// expanded (in bounds: a macro that calls itself ends). Lines are at most 1 MiB; nothing else is kept, so a page of any length
// takes the same memory.

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <graft/io/text_source.hpp>
#include <graft/io/troff_escapes.hpp>

namespace graft {

class troff_filter {
 public:
  // Takes one line of a page, without its newline, and appends what text there is to out.
  void line(std::string_view input, std::string& out);
  // Ends the page.
  void finish(std::string& out);
  // After finish: whether the page was nothing but an inclusion of another page.
  bool is_stub() const { return saw_include_ && !wrote_; }

 private:
  enum class table_state { none, format, rows, block };
  static constexpr std::size_t longest_line = 1 << 20;

  void process(std::string_view line);
  void text_line(std::string_view line);
  void request(std::string_view line);
  bool conditional(std::string_view name, std::string_view rest);
  bool structure(const std::string& name, const std::vector<std::string>& arguments);
  bool inline_macro(const std::string& name, const std::vector<std::string>& arguments);
  bool definition(const std::string& name, std::string_view rest, const std::vector<std::string>& arguments);
  bool mdoc(const std::string& name, const std::vector<std::string>& arguments);
  void call(const std::string& name, const std::vector<std::string>& arguments);
  void table_line(std::string_view line);
  void table_cells(std::string_view cells);
  bool true_condition(std::string_view& rest);

  void emit(std::string_view text, bool continues = false);
  void emit_rendered(std::string_view source);
  void attach(std::string_view text);
  void line_break();
  void paragraph();
  void heading(const std::string& title);
  static std::string joined(const std::vector<std::string>& arguments, std::string_view separator);

  detail::troff_state state_;
  std::map<std::string, std::vector<std::string>, std::less<>> macros_;
  std::string* out_ = nullptr;
  std::string pending_;         // input lines that continue on the next
  std::string current_;         // the output line being filled
  std::string definition_;      // the macro being defined ...
  std::vector<std::string> body_;
  std::string link_;            // the address of .UR or .MT, or punctuation after an mdoc macro
  std::string mdoc_name_;
  std::vector<std::string> row_;
  std::string cell_;
  std::vector<bool> else_;      // what .el will do, innermost last
  table_state table_ = table_state::none;
  char table_separator_ = '\t';
  int skip_depth_ = 0;          // open \{ of a branch not taken
  int call_depth_ = 0;
  std::size_t body_bytes_ = 0;
  bool defining_ = false, ignoring_ = false, equation_ = false;
  bool fill_ = true, join_ = false, blank_ = false, after_heading_ = false;
  bool tag_next_ = false, tag_open_ = false, heading_next_ = false, dropped_section_ = false;
  bool saw_include_ = false, wrote_ = false, tag_continues_ = false;
};

// Input: continuation lines are joined, Latin-1 becomes UTF-8, comments go.
inline void troff_filter::line(std::string_view input, std::string& out) {
  out_ = &out;
  if (input.ends_with('\r')) input.remove_suffix(1);
  std::string utf8;
  if (detail::invalid_utf8_bytes(input) > 0) {  // as man does: what is not UTF-8 is Latin-1
    for (const char c : input) detail::append_utf8(utf8, static_cast<unsigned char>(c));
    input = utf8;
  }
  const std::string_view bare = detail::without_troff_comment(input);
  if (bare.size() < input.size() && bare.empty() && pending_.empty()) return;
  pending_ += bare;
  if (bare.size() == input.size() && pending_.size() < longest_line) {
    const std::size_t last = pending_.find_last_not_of('\\');
    const std::size_t backslashes = pending_.size() - (last == std::string::npos ? 0 : last + 1);
    if (backslashes % 2 == 1) {
      pending_.pop_back();
      return;
    }
  }
  const std::string complete = std::move(pending_);
  pending_.clear();
  process(complete);
}

inline void troff_filter::finish(std::string& out) {
  out_ = &out;
  if (!pending_.empty()) process(std::exchange(pending_, {}));
  if (table_ == table_state::block) table_line("T}");
  line_break();
}

inline void troff_filter::process(std::string_view line) {
  if (skip_depth_ > 0) {  // the branch not taken, up to its \}
    for (std::size_t i = 0; i + 1 < line.size() && skip_depth_ > 0; ++i)
      if (line[i] == '\\') {
        skip_depth_ += line[i + 1] == '{' ? 1 : line[i + 1] == '}' ? -1 : 0;
        ++i;
      }
    return;
  }
  if (defining_ || ignoring_) {
    if (line.starts_with("..") && line.find_first_not_of(". \t\\}") == std::string_view::npos) {
      if (defining_) macros_[definition_] = std::move(body_);
      body_.clear();
      body_bytes_ = 0;
      defining_ = ignoring_ = false;
    } else if (defining_ && (body_bytes_ += line.size() + 1) < (1u << 16)) {
      body_.emplace_back(line);
    }
    return;
  }
  if (table_ != table_state::none && !(line.starts_with('.') && table_ != table_state::format)) return table_line(line);
  if (line.starts_with('.') || line.starts_with('\'')) return request(line);
  if (!equation_) text_line(line);
}

inline void troff_filter::text_line(std::string_view line) {
  const std::size_t first = line.find_first_not_of(" \t");
  if (first == std::string_view::npos) {
    if (fill_) return paragraph();
    line_break();
    blank_ = true;
    return;
  }
  if (fill_ && first > 0 && !join_) line_break();  // troff breaks before a line that is indented
  emit_rendered(line);
}

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
  static constexpr std::string_view silent[] = {"TH", "PD", "DT", "UC", "AT", "IX", "Os", "Dt", "XX", "EQ", "EN", "T&"};
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
  const auto number = [&](std::size_t at) { return std::strtol(condition.c_str() + std::min(at, condition.size()), nullptr, 10); };
  const std::size_t compare = condition.find_first_of("=<>");
  if (compare == std::string::npos) return (number(0) > 0) != negate;
  const std::size_t right = condition.find_first_not_of("=<>", compare);
  const long a = number(0), b = number(right == std::string::npos ? condition.size() : right);
  value = condition[compare] == '=' ? a == b : condition[compare] == '<' ? a < b : a > b;
  return value != negate;
}

// Requests that define, and those whose text is not the page's. True when name was one of them.
inline bool troff_filter::definition(const std::string& name, std::string_view rest, const std::vector<std::string>& arguments) {
  if (name == "de" || name == "de1" || name == "am") {
    defining_ = true;
    definition_ = arguments.empty() ? std::string() : arguments[0];
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
        if (source[i + 1] == '\\') ++i;  // a definition is read once more than a line
        else line += source[i++];
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

inline void troff_filter::emit_rendered(std::string_view source) {
  const detail::troff_text rendered = detail::render_troff(source, state_);
  emit(rendered.text, rendered.continues);
}

// Adds text to the line being filled, or in an example as a line.
inline void troff_filter::emit(std::string_view text, bool continues) {
  if (text.empty() && !continues && fill_) return;
  if (table_ == table_state::block) {
    if (!cell_.empty() && !join_) cell_ += ' ';
    if (cell_.size() < longest_line) cell_ += text;
    join_ = continues;
    return;
  }
  if (heading_next_) {
    heading_next_ = false;
    return heading(std::string(text));
  }
  if (tag_open_ && !join_ && !tag_continues_) {  // the text after a tag
    tag_open_ = false;
    std::size_t characters = 0;
    for (const char c : current_) characters += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    if (characters > 4) line_break();
  }
  if (!current_.empty() && !join_) current_ += ' ';
  current_ += text;
  join_ = continues;
  if (tag_next_ || (tag_open_ && !continues)) {
    tag_next_ = false;
    tag_open_ = true;
    tag_continues_ = continues;
  } else if ((!fill_ && !continues) || current_.size() > longest_line) {
    line_break();
  }
}

// Adds text to the end of the line without a space: the punctuation after a link.
inline void troff_filter::attach(std::string_view text) {
  if (!text.empty()) (table_ == table_state::block ? cell_ : current_) += text;
}

inline void troff_filter::line_break() {
  join_ = tag_open_ = tag_next_ = tag_continues_ = false;
  const std::size_t last = current_.find_last_not_of(" \t");
  current_.resize(last == std::string::npos ? 0 : last + 1);
  if (!current_.empty() && !dropped_section_) {
    if (blank_ && wrote_) out_->push_back('\n');
    *out_ += current_;
    out_->push_back('\n');
    wrote_ = true;
    blank_ = after_heading_ = false;
  }
  current_.clear();
}

inline void troff_filter::paragraph() {
  if (table_ == table_state::block) return;
  line_break();
  if (!after_heading_) blank_ = true;
}

inline void troff_filter::heading(const std::string& title) {
  line_break();
  fill_ = true;
  table_ = table_state::none;
  const std::string text = detail::render_troff(title, state_).text;
  dropped_section_ = text == "TRADUCTION" || text == "COLOPHON";
  blank_ = true;
  current_ = text;
  line_break();
  after_heading_ = true;
}

inline std::string troff_filter::joined(const std::vector<std::string>& arguments, std::string_view separator) {
  std::string text;
  for (std::size_t i = 0; i < arguments.size(); ++i) (text += i > 0 ? separator : std::string_view()) += arguments[i];
  return text;
}

}  // namespace graft

#include <graft/io/troff_mdoc.hpp>
