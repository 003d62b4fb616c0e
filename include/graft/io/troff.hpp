// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Manual pages to readable text: a filter for troff with the man macros (troff_requests.hpp) and the common mdoc ones
// (troff_mdoc.hpp). It keeps the words and the structure and drops the looks:
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
// expanded (in bounds: a macro that calls itself ends). A line of output is at most about 1 MiB, so a page of any
// length takes bounded memory.

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
  std::string pending_;     // input lines that continue on the next
  std::string current_;     // the output line being filled
  std::string definition_;  // the macro being defined ...
  std::vector<std::string> body_;
  std::string link_;  // the address of .UR or .MT, or punctuation after an mdoc macro
  std::string mdoc_name_;
  std::vector<std::string> row_;
  std::string cell_;
  std::vector<bool> else_;  // what .el will do, innermost last
  table_state table_ = table_state::none;
  char table_separator_ = '\t';
  int skip_depth_ = 0;  // open \{ of a branch not taken
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
    // The end is "..", which may have spaces between its dots.
    const std::size_t second = line.starts_with('.') ? line.find_first_not_of(" \t", 1) : std::string_view::npos;
    if (second != std::string_view::npos && line[second] == '.' &&
        line.find_first_not_of(" \t\\}", second + 1) == std::string_view::npos) {
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

// The rest of the class.
#include <graft/io/troff_mdoc.hpp>
#include <graft/io/troff_requests.hpp>
