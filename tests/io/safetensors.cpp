// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// safetensors: files made by hand with known contents, every rule of the format broken once, mutated files.

#include "catch.hpp"

#include <cmath>
#include <random>

#include <graft/io/safetensors_writer.hpp>

#include "io_test.hpp"

namespace safetensors_tests {

using namespace graft;
using io_test::raw_safetensors;
using io_test::read_bytes;
using io_test::scratch_folder;
using io_test::write_bytes;

namespace {

safetensors_header parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes.data(), bytes.size())), "file");
}

std::string pad(std::string header) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return header;
}

// Two floats, 1.0 and -2.5.
const std::string two_floats("\x00\x00\x80\x3f\x00\x00\x20\xc0", 8);

}  // namespace

TEST_CASE("safetensors: a file made by hand is read as written") {
  scratch_folder folder;
  const std::string header =
      R"({"__metadata__":{"format":"pt","note":"h\u00e9"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
      R"("scalar":{"dtype":"BF16","shape":[],"data_offsets":[8,10]},"none":{"dtype":"I64","shape":[0,7],"data_offsets":[10,10]}})";
  write_bytes(folder / "a.safetensors", raw_safetensors(header, two_floats + std::string("\x40\xc0", 2)));
  const safetensors_file file(folder / "a.safetensors");

  REQUIRE(file.tensors().size() == 3);
  CHECK(file.metadata().at("format") == "pt");
  CHECK(file.metadata().at("note") == "h\xc3\xa9");
  CHECK(file.find("missing") == nullptr);
  const stored_tensor* b = file.find("b");
  REQUIRE(b != nullptr);
  CHECK(b->shape == std::vector<std::uint64_t>{2, 1});
  float floats[2] = {};
  file.read(*b, floats);
  CHECK(floats[0] == 1.0f);
  CHECK(floats[1] == -2.5f);
  double second = 0;
  file.read(*b, 1, 1, &second);
  CHECK(second == -2.5);
  double scalar = 0;  // 0xc040 is -3 in bfloat16
  file.read(*file.find("scalar"), &scalar);
  CHECK(scalar == -3.0);
  CHECK(file.find("none")->size() == 0);
  CHECK_ERROR(file.read(*file.find("none"), floats), "none", "F64, F32, BF16 or F16", "I64");
  CHECK_ERROR(file.read(*b, 1, 2, floats), "\"b\"", "elements 1 to 3 of 2");
}

TEST_CASE("safetensors: tensors at odd addresses and of every weight type") {
  // u8 first, so that all others are misaligned. 1.5 in f16 is 0x3e00, the least subnormal 0x0001 is 2^-24,
  // 0xfc00 is minus infinity, 0x7e00 is not a number.
  scratch_folder folder;
  std::string data("\x07", 1);
  data += std::string("\x00\x3e\x01\x00\x00\xfc\x00\x7e", 8);
  data += two_floats;
  const double values[2] = {1.0 / 3.0, -0.0};
  data.append(reinterpret_cast<const char*>(values), sizeof(values));
  write_bytes(
      folder / "odd",
      raw_safetensors(
          R"({"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"h":{"dtype":"F16","shape":[4],"data_offsets":[1,9]},)"
          R"("f":{"dtype":"F32","shape":[2],"data_offsets":[9,17]},"d":{"dtype":"F64","shape":[2],"data_offsets":[17,33]}})",
          data));
  const safetensors_file file(folder / "odd");
  double halves[4] = {};
  file.read(*file.find("h"), halves);
  CHECK(halves[0] == 1.5);
  CHECK(halves[1] == std::ldexp(1.0, -24));
  CHECK(halves[2] == -std::numeric_limits<double>::infinity());
  CHECK(std::isnan(halves[3]));
  double wide[2] = {};
  file.read(*file.find("f"), wide);
  CHECK(wide[0] == 1.0);
  CHECK(wide[1] == -2.5);
  file.read(*file.find("d"), wide);
  CHECK(wide[0] == values[0]);
  CHECK(std::signbit(wide[1]));
  float narrow[2] = {};
  file.read(*file.find("d"), narrow);
  CHECK(narrow[0] == 1.0f / 3.0f);
}

TEST_CASE("safetensors: every violation of the format is one sentence") {
  const auto one = [](const std::string& entry, const std::string& data = two_floats) {
    return raw_safetensors("{\"w\":" + entry + "}", data);
  };
  const std::string good = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  CHECK(parse(one(good)).tensors.size() == 1);
  CHECK(parse(raw_safetensors("{}", "")).tensors.empty());

  SECTION("length and header") {
    CHECK_ERROR(parse(""), "file", "at least 8 bytes", "got 0");
    CHECK_ERROR(parse("1234567"), "at least 8 bytes", "got 7");
    std::string huge(16, '{');
    const std::uint64_t length = 100'000'001;
    std::memcpy(huge.data(), &length, 8);
    CHECK_ERROR(parse(huge), "at most 100000000 bytes", "100000001");
    std::string all_ones(16, '\xff');
    CHECK_ERROR(parse(all_ones), "at most 100000000 bytes", "18446744073709551615");
    CHECK_ERROR(parse(one(good).substr(0, 20)), "truncated", "header should have", "holds 12");
    CHECK_ERROR(parse(raw_safetensors("", "")), "start with {", "empty header");
    CHECK_ERROR(parse(raw_safetensors(" {}", "")), "start with {", "\" \"");
    CHECK_ERROR(parse(raw_safetensors("[]", "")), "start with {", "\"[\"");
    CHECK_ERROR(parse(raw_safetensors("{\"a\"", "")), "JSON", "at byte 4", "syntax error");
    CHECK_ERROR(parse(raw_safetensors("{} x", "")), "JSON", "at byte 3");
    CHECK_ERROR(parse(raw_safetensors("{\"\xff\":1}", "")), "UTF-8", "at byte 2");
    CHECK_ERROR(parse(raw_safetensors("{\"\xc0\xaf\":1}", "")), "UTF-8");  // overlong
    CHECK_ERROR(parse(raw_safetensors("{\"\\ud800\":1}", "")), "UTF-8");   // half a surrogate pair
    CHECK_ERROR(parse(raw_safetensors("{\"a\":1e999}", "")), "number out of range");
    CHECK_ERROR(parse(raw_safetensors("{\"a\":" + std::string(100000, '['), "")), "nested deeper than 64");
  }
  SECTION("duplicates") {
    CHECK_ERROR(parse(raw_safetensors("{\"w\":" + good + ",\"w\":" + good + "}", two_floats)), "\"w\"", "twice");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[2],"dtype":"F32","data_offsets":[0,8]})")), "\"dtype\"", "twice");
    CHECK_ERROR(parse(raw_safetensors(R"({"__metadata__":{"a":"1","a":"1"}})", "")), "\"a\"", "twice");
  }
  SECTION("metadata") {
    CHECK_ERROR(parse(raw_safetensors(R"({"__metadata__":{"a":1}})", "")), "__metadata__", "strings", "got 1", "\"a\"");
    CHECK_ERROR(parse(raw_safetensors(R"({"__metadata__":"a"})", "")), "__metadata__", "object of strings");
  }
  SECTION("entries") {
    CHECK_ERROR(parse(one("3")), "\"w\"", "expected an object", "got 3");
    CHECK_ERROR(parse(one(R"({"shape":[2],"data_offsets":[0,8]})")), "\"w\"", "\"dtype\" is missing");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","data_offsets":[0,8]})")), "\"shape\" is missing");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[2]})")), "\"data_offsets\" is missing");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})")), "unknown key \"x\"");
    CHECK_ERROR(parse(one(R"({"dtype":"F31","shape":[2],"data_offsets":[0,8]})")), "unknown dtype \"F31\"");
    CHECK_ERROR(parse(one(R"({"dtype":5,"shape":[2],"data_offsets":[0,8]})")), "\"dtype\"", "a string", "got 5");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})")), "\"shape\"", "array of integers",
                "got 2");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})")), "shape", "got -2");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})")), "shape", "got 2.0");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]})")), "shape",
                "integers");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})")), "data_offsets", "two integers",
                "got [0]");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,9]})")), "data_offsets", "two integers");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[2],"data_offsets":["0",8]})")), "data_offsets", "got \"0\"");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})")), "\"w\"", "ascending", "[8, 0]");
  }
  SECTION("sizes") {
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})")), "\"w\"", "expected 12 bytes",
                "[3] of F32", "got 8");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})")),
                "[4294967296, 4294967296]", "64-bit");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,8]})")), "64-bit");
    CHECK_ERROR(parse(one(R"({"dtype":"F4","shape":[3],"data_offsets":[0,2]})", "ab")), "whole bytes", "12 bits");
    CHECK(parse(one(R"({"dtype":"F4","shape":[4],"data_offsets":[0,2]})", "ab")).tensors[0].size() == 4);
    CHECK(parse(one(R"({"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]})", "abc")).tensors[0].bytes() == 3);
  }
  SECTION("holes, overlaps, ends") {
    const auto two = [](const std::string& a, const std::string& b, const std::string& data) {
      return raw_safetensors(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)" + a +
                                 R"(},"b":{"dtype":"F32","shape":[1],"data_offsets":)" + b + "}}",
                             data);
    };
    CHECK(parse(two("[4,8]", "[0,4]", two_floats)).tensors.front().name == "b");
    CHECK_ERROR(parse(two("[0,4]", "[8,12]", std::string(12, 'x'))), "\"b\"", "hole", "begin at 4", "got 8");
    CHECK_ERROR(parse(two("[4,8]", "[8,12]", std::string(12, 'x'))), "\"a\"", "hole", "begin at 0", "got 4");
    CHECK_ERROR(parse(two("[0,4]", "[2,6]", std::string(6, 'x'))), "\"b\"", "overlaps", "begin at 4", "got 2");
    CHECK_ERROR(parse(two("[0,4]", "[0,4]", std::string(4, 'x'))), "\"b\"", "overlaps");
    CHECK_ERROR(parse(one(good, two_floats.substr(0, 7))), "truncated", "8 bytes", "holds 7");
    CHECK_ERROR(parse(one(good, two_floats + "x")), "1 bytes after the last tensor");
    CHECK_ERROR(parse(one(R"({"dtype":"F32","shape":[0],"data_offsets":[8,8]})")), "hole");
  }
  SECTION("names are shown on one line") {
    CHECK_ERROR(parse(raw_safetensors("{\"a\\nb" + std::string(1000, 'x') + "\":3}", "")), "a\\x0ab", "...");
  }
}

TEST_CASE("safetensors: what is not a file") {
  scratch_folder folder;
  CHECK_ERROR(safetensors_file(folder / "absent"), (folder / "absent").string(), "cannot open", "No such file");
  CHECK_ERROR(safetensors_file(folder.path()), "regular file", "folder");
  CHECK_ERROR(safetensors_file("/dev/null"), "/dev/null", "regular file");
  write_bytes(folder / "empty", "");
  CHECK_ERROR(safetensors_file(folder / "empty"), "at least 8 bytes", "got 0");
}

TEST_CASE("safetensors: the writer's bytes are known") {
  scratch_folder folder;
  const float ones[2] = {1.0f, -2.5f};
  std::vector<tensor_source> tensors;
  tensors.push_back(make_tensor_source("b", {2}, ones, file_dtype::bf16));
  tensors.push_back(make_tensor_source("z", {1, 2}, ones, file_dtype::f32));
  tensors.push_back(make_tensor_source("a\"", {}, ones, file_dtype::f32));
  write_safetensors(folder / "w", tensors, {{"graft", "1"}});
  // Descending type, then name: F32 a", F32 z, BF16 b.
  const std::string header = pad(
      R"({"__metadata__":{"format":"pt","graft":"1"},"a\"":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("z":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]}})");
  CHECK(header.size() % 8 == 0);
  CHECK(read_bytes(folder / "w") ==
        raw_safetensors(header, two_floats.substr(0, 4) + two_floats + std::string("\x80\x3f\x20\xc0", 4)));
  CHECK(folder.names() == std::vector<std::string>{"w"});

  CHECK_ERROR(write_safetensors(folder / "x", {tensors[0], tensors[0]}), "two entries named \"b\"",
              (folder / "x").string());
  CHECK_ERROR(write_safetensors(folder / "x", {make_tensor_source("__metadata__", {1}, ones, file_dtype::f32)}),
              "__metadata__");
  CHECK_ERROR(write_safetensors(folder / "x", {make_tensor_source("\xff", {1}, ones, file_dtype::f32)}), "not UTF-8");
  CHECK_ERROR(make_tensor_source("h", {1}, ones, file_dtype::f16), "\"h\"", "F64, F32 or BF16", "F16");
  CHECK(folder.names() == std::vector<std::string>{"w"});
}

TEST_CASE("safetensors: a round trip keeps every bit, in pieces larger than the buffer") {
  scratch_folder folder;
  std::mt19937 random(7);
  std::vector<float> values(700'001);
  // Any bit pattern but NaNs, whose quietness a conversion may change.
  for (float& value : values) {
    do value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    while (std::isnan(value));
  }
  std::vector<float> narrow(values);
  for (float& value : narrow) value = static_cast<float>(bfloat16(value));
  write_safetensors(folder / "r", {make_tensor_source("f", {values.size()}, values.data(), file_dtype::f32),
                                   make_tensor_source("n", {values.size()}, values.data(), file_dtype::bf16),
                                   make_tensor_source("d", {values.size()}, values.data(), file_dtype::f64)});
  const safetensors_file file(folder / "r");
  std::vector<float> back(values.size());
  const auto same = [&](const std::vector<float>& expected) {
    return std::memcmp(back.data(), expected.data(), back.size() * sizeof(float)) == 0;
  };
  file.read(*file.find("f"), back.data());
  CHECK(same(values));
  file.read(*file.find("d"), back.data());
  CHECK(same(values));
  file.read(*file.find("n"), back.data());
  CHECK(same(narrow));
}

TEST_CASE("safetensors: saving over a file that is being read") {
  scratch_folder folder;
  const float before[2] = {1, 2};
  write_safetensors(folder / "m", {make_tensor_source("w", {2}, before, file_dtype::f32)});
  const safetensors_file old(folder / "m");
  // The source of the new file is the mapping of the old one.
  write_safetensors(folder / "m", {{"w",
                                    file_dtype::f32,
                                    {2},
                                    [&](std::uint64_t first, std::span<std::byte> piece) {
                                      std::memcpy(piece.data(), old.bytes(*old.find("w")).data() + first, piece.size());
                                    }},
                                   make_tensor_source("x", {1}, before, file_dtype::f32)});
  float back[2] = {};
  old.read(*old.find("w"), back);
  CHECK(back[1] == 2);
  const safetensors_file now(folder / "m");
  back[1] = 0;
  now.read(*now.find("w"), back);
  CHECK(back[1] == 2);
  CHECK(now.find("x") != nullptr);
}

TEST_CASE("safetensors: mutated files load or are refused, nothing else") {
  const float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  scratch_folder folder;
  write_safetensors(folder / "v",
                    {make_tensor_source("model.a", {2, 2}, values, file_dtype::f32),
                     make_tensor_source("model.b", {8}, values, file_dtype::bf16),
                     make_tensor_source("c", {}, values, file_dtype::f64)},
                    {{"note", "x"}});
  const std::string valid = read_bytes(folder / "v");
  std::mt19937 random(2026);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  const std::string alphabet =
      "{}[]:,\"0123456789-.eE\\ \xff\x80"
      "F3264BU";
  int loaded = 0, refused = 0;
  for (int round = 0; round < 6000; ++round) {
    std::string bytes = valid;
    const std::size_t edits = 1 + below(4);
    for (std::size_t edit = 0; edit < edits && !bytes.empty(); ++edit) {
      const std::size_t at = below(bytes.size());
      switch (below(6)) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes[at] = alphabet[below(alphabet.size())];
          break;
        case 2:
          bytes.erase(at, 1 + below(8));
          break;
        case 3:
          bytes.insert(at, 1, alphabet[below(alphabet.size())]);
          break;
        case 4:
          bytes.resize(at);
          break;
        case 5:
          bytes.insert(at, bytes.substr(below(bytes.size()), below(40)));
          break;
      }
    }
    // In an exact allocation, so that the address sanitizer sees any read beyond it.
    const std::vector<char> exact(bytes.begin(), bytes.end());
    try {
      const auto span = std::as_bytes(std::span(exact));
      const safetensors_header header = parse_safetensors(span, "file");
      for (const stored_tensor& tensor : header.tensors) {
        REQUIRE(header.data_begin + tensor.end <= span.size());
        if (!is_readable_weight(tensor.dtype)) continue;
        std::vector<double> out(tensor.size());
        convert_from_file(tensor.dtype, span.data() + header.data_begin + tensor.begin, out.data(),
                          static_cast<index_t>(out.size()));
      }
      ++loaded;
    } catch (const graft::error& problem) {
      REQUIRE(std::string(problem.what()).starts_with("file: "));
      ++refused;
    }
  }
  // Edits within the data are harmless, most others are not.
  CHECK(loaded > 100);
  CHECK(refused > 3000);
}

}  // namespace safetensors_tests
