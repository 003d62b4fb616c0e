// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// graft.json: round trip, strictness, and the JSON reader under it.

#include "catch.hpp"

#include <graft/io/graft_json.hpp>

#include "io_test.hpp"

namespace graft_json_tests {

using namespace graft;
using nlohmann::json;

namespace {

model_card full_card() {
  model_card card;
  card.kind = "moe";
  card.router = policy_card{"top_k", {{"experts_per_token", 2}}};
  card.balancers = {{"switch_loss", {{"weight", 0.01}}}, {"z_loss", {{"weight", 0.001}}}};
  card.layout = policy_card{"routed", json::object()};
  card.attention = policy_card{"attention_experts", {{"experts", 2}, {"shared_kv", true}}};
  card.experts = {{"code", "cpp"}, {"seed", ""}};
  card.provenance = {
      {"method", "btx"}, {"parents", {"runs/a", "runs/b"}}, {"train_tokens", 123456789012}, {"note", nullptr}};
  return card;
}
model_card parse(const json& value) { return parse_model_card(value, "graft.json"); }
json with(const char* pointer, json value) {
  json card = to_json(full_card());
  card[json::json_pointer(pointer)] = std::move(value);
  return card;
}

}  // namespace

TEST_CASE("graft_json: what is written is read back the same") {
  CHECK(parse(to_json(full_card())) == full_card());
  CHECK(parse(to_json(model_card{})) == model_card{});
  CHECK(to_json(full_card())["graft"] == version_text());
  io_test::scratch_folder folder;
  io_test::write_bytes(folder / "graft.json", to_json(full_card()).dump());
  CHECK(read_model_card(folder / "graft.json") == full_card());
  const json least = json::parse(R"({"graft":"0.1.0","kind":"dense","tokenizer":{"kind":"byte","vocabulary":257}})");
  CHECK(parse(least).provenance == json::object());
}

TEST_CASE("graft_json: unknown keys and wrong values are named") {
  CHECK_ERROR(parse(with("/extra", 1)), "graft.json", "unknown key \"extra\"", "experts", "provenance", "tokenizer");
  CHECK_ERROR(parse(with("/policies/stitching", {{"name", "x"}})), "policies", "unknown key \"stitching\"",
              "balancer, layout, router");
  CHECK_ERROR(parse(with("/experts/0/width", 1)), "expert 0", "unknown key \"width\"", "domain, name");
  CHECK_ERROR(parse(with("/tokenizer/merges", 1)), "tokenizer", "unknown key \"merges\"", "kind, vocabulary");
  CHECK_ERROR(parse(with("/kind", "sparse")), "\"kind\"", "\"moe\"", "got \"sparse\"");
  CHECK_ERROR(parse(with("/experts", 4)), "\"experts\"", "array", "got 4");
  CHECK_ERROR(parse(with("/experts/1", "code")), "expert 1", "object", "got \"code\"");
  CHECK_ERROR(parse(with("/policies/balancer", {{"name", "x"}})), "\"balancer\"", "array");
  CHECK_ERROR(parse(with("/policies/router", "top_k")), "router", "object", "got \"top_k\"");
  CHECK_ERROR(parse(with("/policies/router/deep", {1})), "router", "\"deep\"", "got [1]");
  CHECK_ERROR(parse(with("/provenance", 1)), "\"provenance\"", "object");
  CHECK_ERROR(parse(with("/tokenizer/vocabulary", 0)), "\"vocabulary\"", "got 0");
  CHECK_ERROR(parse(json::object()), "\"graft\" is missing");
  json card = to_json(full_card());
  card.erase("tokenizer");
  CHECK_ERROR(parse(card), "\"tokenizer\" is missing");
  model_card named_twice = full_card();
  named_twice.router->options["name"] = "other";
  CHECK_ERROR(to_json(named_twice), "\"top_k\"", "without the key \"name\"");
}

TEST_CASE("json: text that is none") {
  io_test::scratch_folder folder;
  const auto read = [&](const std::string& text) {
    io_test::write_bytes(folder / "x.json", text);
    return read_json_file(folder / "x.json");
  };
  CHECK(read(" {\"a\": [1, 2.5, null]} \n")["a"].size() == 3);
  const std::string path = (folder / "x.json").string();
  CHECK_ERROR(read(""), path, "at byte 0");
  CHECK_ERROR(read("{\"a\": 1,}"), path, "at byte 8");
  CHECK_ERROR(read("{\"a\": 1"), path, "at byte 7");
  CHECK_ERROR(read("{\"a\": NaN}"), path, "at byte 6");
  CHECK_ERROR(read("{\"a\": {\"b\": 1, \"c\": 2, \"b\": 3}}"), path, "\"b\"", "twice");
  CHECK(read("{\"a\": {\"b\": 1}, \"b\": {\"a\": 1}, \"c\": [{\"b\": 1}, {\"b\": 1}]}").size() == 3);
  CHECK_ERROR(read("{\"\\u0000\x01\": 1}"), path, "at byte");
  CHECK_ERROR(read_json_file(folder / "none.json"), "none.json", "No such file");
}

}  // namespace graft_json_tests
