// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The page of a report: any text is safe in it, its elements nest, it asks nothing of the network, and each section is
// there when its data is.

#include "catch.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <graft/analysis/report.hpp>
#include <graft/analysis/report_sections.hpp>

namespace report_tests {

using namespace graft;

namespace {

// What is wrong with the nesting of elements and the quoting of attributes; empty when nothing is.
std::string markup_problem(const std::string& page) {
  std::vector<std::string> open;
  std::size_t at = 0;
  const std::string doctype = "<!DOCTYPE html>";
  if (page.rfind(doctype, 0) == 0) at = doctype.size();
  while (at < page.size()) {
    if (page[at] == '>') return "a > in text at byte " + std::to_string(at);
    if (page[at] == '&') {
      const std::size_t end = page.find(';', at);
      const std::string name = end == std::string::npos ? "" : page.substr(at + 1, end - at - 1);
      const bool known =
          name == "amp" || name == "lt" || name == "gt" || name == "quot" || name == "#39" || name == "#8211";
      if (!known) return "an unknown reference at byte " + std::to_string(at);
    }
    if (page[at] != '<') {
      ++at;
      continue;
    }
    if (page[at + 1] == '/') {
      const std::size_t end = page.find('>', at);
      const std::string name = page.substr(at + 2, end - at - 2);
      if (open.empty() || open.back() != name) return "</" + name + "> closes " + (open.empty() ? "" : open.back());
      open.pop_back();
      at = end + 1;
      continue;
    }
    std::size_t end = at + 1;
    while (end < page.size() && (std::isalnum(static_cast<unsigned char>(page[end])) != 0)) ++end;
    const std::string name = page.substr(at + 1, end - at - 1);
    if (name.empty()) return "a < in text at byte " + std::to_string(at);
    while (page[end] == ' ') {
      const std::size_t equals = page.find('=', end);
      if (equals == std::string::npos || page[equals + 1] != '"') return "an unquoted attribute of " + name;
      const std::size_t quote = page.find('"', equals + 2);
      const std::string value = page.substr(equals + 2, quote - equals - 2);
      if (value.find('<') != std::string::npos) return "a < in an attribute of " + name;
      end = quote + 1;
    }
    const bool closed = page.compare(end, 2, "/>") == 0;
    if (!closed && page[end] != '>') return "the end of " + name + " at byte " + std::to_string(end);
    at = end + (closed ? 2 : 1);
    if (closed) continue;
    open.push_back(name);
    if (name == "style") at = page.find("</style>", at);  // a style sheet is no markup: it may hold a >
  }
  return open.empty() ? "" : "<" + open.back() + "> is not closed";
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

const std::string hostile = "<script>alert('&\"')</script>\xff\xc3\x01\n";

// A report with every section, and every text in it hostile.
report_data everything() {
  report_data data;
  data.title = hostile;
  data.subtitle = hostile;
  data.facts = {{hostile, hostile}};
  data.tables.push_back({hostile,
                         hostile,
                         hostile,
                         {{hostile, report_best::lowest, 3, hostile}, {"seen", report_best::none, 0, ""}},
                         {{"seed", hostile, {1.25, "5.1M"}, false}, {hostile, "", {1.125, report_cell()}, true}}});
  data.losses.push_back({hostile, hostile, hostile, hostile, {{hostile, {1, 2, 3}, {4, 3, 2}}, {"empty", {}, {}}}});
  report_matrix matrix{hostile, hostile, hostile, {hostile}, {"a", hostile}, share_matrix(1, 2), 1};
  matrix.values(0, 1) = 0.75;
  data.shares.push_back(matrix);
  data.coactivation.push_back(matrix);
  data.saturation.curves.push_back({hostile, {0, 10}, {0.5, 1}});
  data.vocabulary.push_back({hostile, 0.5, 7, {{hostile, {{hostile, 0.5, 12}}}, {"unused", {}}}});
  const routing_trace routing{{1, 2, 3}, {{4, 2, 2, {0, 1, 1, 0, -1, -1}, {0.75f, 0.25f, 0.5f, 0.5f, 0, 0}}}};
  const std::vector<std::string> pieces{hostile, "\xc3", "\xa9"};
  data.gates.push_back(
      {hostile, hostile, pieces, {{hostile, 0, 2}, {"b", 2, 3}}, gate_trace_of(routing, {hostile, "b"}), 2});
  data.texts.push_back({hostile, hostile, pieces, {{hostile, 0, 2}, {"b", 2, 3}}, {hostile, "b"}, routing});
  return data;
}

const std::vector<std::string> sections{"results", "text",       "gates",        "shares",
                                        "losses",  "saturation", "coactivation", "vocabulary"};

}  // namespace

TEST_CASE("escaped: any bytes", "[analysis]") {
  CHECK(escaped("a<b>&\"c'") == "a&lt;b&gt;&amp;&quot;c&#39;");
  CHECK(escaped("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\xb1") == "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\xb1");
  CHECK(escaped("x\xc3") == "x\\xc3");                           // cut off
  CHECK(escaped("\xa9y\xff") == "\\xa9y\\xff");                  // a continuation alone, no UTF-8 byte
  CHECK(escaped("\xc0\xaf") == "\\xc0\\xaf");                    // overlong /
  CHECK(escaped("\xe0\x80\xaf") == "\\xe0\\x80\\xaf");           // overlong
  CHECK(escaped("\xed\xa0\x80") == "\\xed\\xa0\\x80");           // a surrogate
  CHECK(escaped("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");  // above U+10FFFF
  CHECK(escaped("a\n\t\r" + std::string(1, '\0') + "\x1b\x7f") == "a\\n\\t\\r\\x00\\x1b\\x7f");
  CHECK(escaped("\xe2\x80\xae"
                "abc") ==
        "\\xe2\\x80\\xae"
        "abc");  // right-to-left override
  CHECK(escaped("\xc2\x85") == "\\xc2\\x85");
  // Every single byte: never a character that markup gives a meaning to.
  for (int byte = 0; byte < 256; ++byte)
    CHECK(markup_problem("<p title=\"" + escaped(std::string(1, static_cast<char>(byte))) + "\">" +
                         escaped(std::string(1, static_cast<char>(byte))) + "</p>")
              .empty());
}

TEST_CASE("shown_pieces: a character stands in its first token", "[analysis]") {
  const std::vector<shown_piece> shown = shown_pieces({"caf", "\xc3", "\xa9", " ", "\n", "<", "\xff", ""});
  REQUIRE(shown.size() == 8);
  CHECK(shown[0].text == "caf");
  CHECK(shown[1].text == "\xc3\xa9");
  CHECK_FALSE(shown[1].continues);
  CHECK(shown[2].text.empty());
  CHECK(shown[2].continues);
  CHECK(shown[3].text == " ");
  CHECK(shown[4].ends_line);
  CHECK(shown[5].text == "&lt;");
  CHECK(shown[6].text == "\\xff");
  CHECK_FALSE(shown[7].continues);
  CHECK(shown[7].text == "\xe2\x88\x8e");
}

TEST_CASE("numbers for people", "[analysis]") {
  CHECK(fixed_number(1.2345, 2) == "1.23");
  CHECK(fixed_number(-0.001, 1) == "0.0");
  CHECK(percent(0.5) == "50%");
  CHECK(percent(0.034) == "3.4%");
  CHECK(percent(0) == "0%");
  CHECK(percent(1) == "100%");
  CHECK(percent(0.0001) == "&lt;0.1%");
}

TEST_CASE("report_html: nests, whatever the text is, and asks nothing of the network", "[analysis]") {
  const std::string page = report_html(everything());
  CHECK(markup_problem(page) == "");
  CHECK(page.rfind("<!DOCTYPE html>", 0) == 0);
  CHECK(page.find("<script") == std::string::npos);
  CHECK(count_of(page, "http") == count_of(page, "xmlns=\"http://www.w3.org/2000/svg\""));
  CHECK(page.find("//") != std::string::npos);
  CHECK(count_of(page, "//") == count_of(page, "xmlns=\"http://"));
  for (const char* fetched : {"<img", "<link", "<iframe", "@import", "url(", " src="})
    CHECK(page.find(fetched) == std::string::npos);
  std::size_t valid = 0;  // the page is UTF-8
  while (valid < page.size() && utf8_length(page, valid) > 0) valid += utf8_length(page, valid);
  CHECK(valid == page.size());
  // The checker itself finds what it is for.
  CHECK(markup_problem("<p><b></p></b>") != "");
  CHECK(markup_problem("<p>a > b</p>") != "");
  CHECK(markup_problem("<p>a & b</p>") != "");
  CHECK(markup_problem("<p title=x></p>") != "");
  CHECK(markup_problem("<p>") != "");
}

TEST_CASE("report_html: a section for what there is", "[analysis]") {
  const auto has = [](const report_data& data, const std::string& section) {
    const std::string page = report_html(data);
    return count_of(page, "<section id=\"" + section + "\"") == 1;
  };
  const report_data all = everything();
  for (const std::string& section : sections) {
    CHECK(has(all, section));
    CHECK(count_of(report_html(all), "href=\"#" + section + "\"") == 1);
  }
  const auto without = [&](const std::string& section, const auto& clear) {
    report_data data = everything();
    clear(data);
    for (const std::string& other : sections) CHECK(has(data, other) == (other != section));
    CHECK(report_html(data).find("#" + section) == std::string::npos);
  };
  without("results", [](report_data& data) { data.tables[0].rows.clear(); });
  without("text", [](report_data& data) { data.texts[0].routing.blocks.clear(); });
  without("gates", [](report_data& data) { data.gates[0].gates.panels.clear(); });
  without("shares", [](report_data& data) { data.shares[0].values.values.clear(); });
  without("losses", [](report_data& data) { data.losses[0].curves.clear(); });
  without("saturation", [](report_data& data) { data.saturation.curves.clear(); });
  without("coactivation", [](report_data& data) { data.coactivation.clear(); });
  without("vocabulary", [](report_data& data) { data.vocabulary.clear(); });

  const std::string bare = report_html({});
  CHECK(markup_problem(bare) == "");
  CHECK(count_of(bare, "<section") == 0);
  CHECK(count_of(bare, "<nav") == 0);
}

TEST_CASE("report_html: tables mark the best, texts carry the weights", "[analysis]") {
  const std::string page = report_html(everything());
  CHECK(count_of(page, "<td><b>1.125</b></td>") == 1);
  CHECK(count_of(page, "<td class=\"mark\">1.250</td>") == 1);
  CHECK(count_of(page, "<td>5.1M</td>") == 1);
  CHECK(count_of(page, "<td class=\"none\">&#8211;</td>") == 1);
  // The second token: a tie, so that the lower expert has it; its byte begins the character of the third.
  CHECK(count_of(page, "<span class=\"t e0\" title=\"" + escaped(hostile) + " 0.50, b 0.50\">\xc3\xa9</span>") == 1);
  CHECK(count_of(page, "<span class=\"t rest\" title=\"rest of the character before: no expert\"></span>") == 1);
  CHECK(count_of(page, ">75%</text>") == 2);  // a cell of two maps

  report_data wrong = everything();
  wrong.tables[0].rows[0].cells.pop_back();
  CHECK_THROWS_WITH(report_html(wrong), Catch::Contains("expected 2 cells in the row seed, got 1"));
  wrong = everything();
  wrong.texts[0].pieces.pop_back();
  CHECK_THROWS_WITH(report_html(wrong),
                    Catch::Contains("expected the routing of 2 tokens to 2 experts, got that of 3"));
  wrong = everything();
  wrong.shares[0].rows.emplace_back("more");
  CHECK_THROWS_WITH(report_html(wrong), Catch::Contains("expected names of 1 rows and 2 columns, got 2 and 2"));
}

TEST_CASE("report sections: from measurements to maps, curves and lists", "[analysis]") {
  layer_load dense, routed;
  routed.counts = {3, 1};
  routed.tokens = 4;
  const std::vector<report_matrix> maps =
      share_maps({"code", "french"}, {"a", "b"}, {{dense, routed}, {dense, routed}});
  REQUIRE(maps.size() == 2);
  CHECK(maps[1].title == "french");
  CHECK(maps[1].rows == std::vector<std::string>{"layer 1"});
  CHECK(maps[1].values.values == std::vector<double>{0.75, 0.25});
  CHECK(share_maps({"code"}, {"a"}, {{dense}}).empty());
  CHECK_THROWS_WITH(share_maps({"code"}, {"a"}, {{routed}}), Catch::Contains("expected names of 2 experts, got 1"));

  const routing_trace trace{{7, 7},
                            {{0, 3, 3, {0, 1, 2, 1, 0, 2}, {0.75f, 0.25f, 0, 0.5f, 0.5f, 0}},
                             {1, 3, 1, {0, 1}, {1, 1}},
                             {2, 3, 2, {0, 1, 2, 1}, {0.5f, 0.5f, 0.5f, 0.5f}}}};
  const std::vector<report_matrix> pairs = coactivation_maps(trace, {"a", "b", "c"});
  REQUIRE(pairs.size() == 1);  // all experts on each token in layer 0, one in layer 1: nothing to say
  CHECK(pairs[0].title == "layer 2");
  CHECK(pairs[0].values(0, 1) == 1);
  CHECK(pairs[0].values(1, 0) == 0.5);
  CHECK(std::isnan(pairs[0].values(1, 1)));  // an empty cell

  const std::vector<report_matrix> domains = domain_maps("btx", {trace}, {"code"}, {"a", "b", "c"});
  REQUIRE(domains.size() == 3);
  CHECK(domains[0].title == "btx, layer 0, mean weight");
  CHECK(domains[0].values.values == std::vector<double>{0.625, 0.375, 0});
  CHECK(domains[1].title == "btx, layer 1");
  CHECK(domains[1].values.values == std::vector<double>{0.5, 0.5, 0});
  CHECK_THROWS_WITH(domain_maps("btx", {trace}, {"code"}, {"a"}),
                    Catch::Contains("expected names of 3 experts, got 1"));
  CHECK(domain_maps("btx", {}, {}, {}).empty());

  const report_vocabulary lists =
      vocabulary_lists(trace, 1, {"a", "b", "c"}, [](std::int32_t id) { return "<" + std::to_string(id) + ">"; },
                       {.least_occurrences = 2});
  CHECK(lists.title == "layer 1");
  CHECK(lists.mean == 0.5);
  REQUIRE(lists.experts[1].words.size() == 1);
  CHECK(lists.experts[1].words[0].bytes == "<7>");

  const report_chart chart = saturation_chart({{2, 0.5, {0, 8}, {0.25, 1}}});
  REQUIRE(chart.curves.size() == 1);
  CHECK(chart.curves[0].name == "layer 2");
  CHECK(chart.curves[0].y == std::vector<double>{0.25, 1});
  CHECK(chart.note == "Chance is 50%.");

  const auto folder = std::filesystem::temp_directory_path() / ("graft-report-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "metrics.jsonl") << "{\"step\": 0, \"loss\": 1.3862943611198906, \"tokens\": 500000}\n"
                                             "{\"step\": 1, \"loss\": 0.6931471805599453, \"tokens\": 500000}\n";
  const report_curve curve = loss_curve("btx", folder / "metrics.jsonl", 1e6);
  CHECK(curve.x == std::vector<double>{1.5, 2});
  CHECK(curve.y == std::vector<double>{2, 1.5});  // bits, the mean of both
  CHECK(loss_curve("none", folder / "none.jsonl").x.empty());

  write_report(folder / "report.html", everything());
  std::ostringstream written;
  written << std::ifstream(folder / "report.html").rdbuf();
  CHECK(written.str() == report_html(everything()));
  std::filesystem::remove_all(folder);
}

}  // namespace report_tests
