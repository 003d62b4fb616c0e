// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a layer says about one of its parameters, once: role, extents, names of its parts in a checkpoint,
// initial distribution. Everything else (allocation, files, merging, freezing, counting) is derived from it.

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>

namespace graft {

// What a parameter is for. Recipes and freezing speak of roles.
enum class role { embedding, attention, norm, ffn, router, head, stitch, adapter };

inline constexpr role all_roles[] = {role::embedding, role::attention, role::norm,   role::ffn,
                                     role::router,    role::head,      role::stitch, role::adapter};

constexpr std::string_view name_of(role kind) {
  constexpr std::string_view names[] = {"embedding", "attention", "norm", "ffn", "router", "head", "stitch", "adapter"};
  return names[static_cast<int>(kind)];
}

static_assert(name_of(all_roles[sizeof(all_roles) / sizeof(role) - 1]) == "adapter",
              "graft::role: all_roles and the names disagree. List a new role in both, in the order of the enum.");

struct initializer {
  enum class kind { zeros, ones, normal, identity, constant, orthonormal };
  kind distribution = kind::zeros;
  double stddev = 0;  // of normal
  double value = 0;   // of constant

  static constexpr initializer zeros() { return {kind::zeros, 0}; }
  static constexpr initializer ones() { return {kind::ones, 0}; }
  static constexpr initializer normal(double stddev) { return {kind::normal, stddev}; }
  static constexpr initializer constant(double value) { return {kind::constant, 0, value}; }
  // Normal rows made orthonormal. Requires: rows <= columns.
  static constexpr initializer orthonormal() { return {kind::orthonormal}; }
  static constexpr initializer identity() { return {kind::identity, 0}; }  // 1 where row and column agree, else 0
};

// Rows of a fused weight that a checkpoint holds as a tensor of its own: {"q_proj", 512}.
struct tensor_part {
  const char* name = "";  // empty: the name of the struct member
  index_t rows = 0;
};

// The widths of the experts of one layer where they differ. Trivially copyable, so that it travels with a policy.
struct expert_widths {
  static constexpr int most = 64;

  std::int32_t count = 0;
  std::int32_t values[most] = {};

  constexpr expert_widths() = default;
  constexpr expert_widths(std::initializer_list<index_t> widths) {
    for (const index_t width : widths) add(width);
  }
  constexpr void add(index_t width) {
    GRAFT_CHECK(count < most && width >= 1, "expert_widths: expected at most ", int{most},
                " experts of a width of at least 1, got expert ", count, " of width ", width);
    values[count++] = static_cast<std::int32_t>(width);
  }
  GRAFT_HOST_DEVICE constexpr index_t operator[](index_t expert) const { return values[expert]; }
  constexpr index_t largest() const {
    index_t width = 0;
    for (int i = 0; i < count && i < most; ++i) width = values[i] > width ? values[i] : width;
    return width;
  }
  constexpr index_t sum() const {
    index_t total = 0;
    for (int i = 0; i < count; ++i) total += values[i];
    return total;
  }
  bool operator==(const expert_widths&) const = default;
};

// One parameter: (experts,) rows, columns in memory. A default-constructed spec is an absent parameter: it takes no
// memory and appears in no file (lm_head of a tied model).
struct parameter_spec {
  static constexpr int max_parts = 3;

  role kind = role::embedding;
  tensor_part parts[max_parts] = {};
  int part_count = 0;
  index_t columns = 0;     // 0: a vector of `rows` elements
  index_t experts = 0;     // above 0: one such matrix per expert, stacked
  expert_widths widths{};  // count above 0: expert e's part has so many rows, or columns; rows() and columns are
  bool widths_are_columns = false;  // then the largest
  initializer init{};
  bool decay = true;      // weight decay applies
  bool optimized = true;  // false: no gradient moves it (a balancer's selection bias); saved and loaded all the same

  static constexpr parameter_spec vector(role kind, index_t size, initializer init, bool decay = false) {
    parameter_spec spec;
    spec.kind = kind;
    spec.parts[0].rows = size;
    spec.part_count = 1;
    spec.init = init;
    spec.decay = decay;
    return spec;
  }
  static constexpr parameter_spec matrix(role kind, index_t rows, index_t columns, initializer init) {
    return fused(kind, {{"", rows}}, columns, init);
  }
  // Several matrices of the same width in one, rows after rows, so that one product computes all of them.
  static constexpr parameter_spec fused(role kind, std::initializer_list<tensor_part> parts, index_t columns,
                                        initializer init) {
    parameter_spec spec;
    spec.kind = kind;
    GRAFT_CHECK(parts.size() <= max_parts, "parameter_spec: expected at most ", int{max_parts}, " parts, got ",
                parts.size());
    for (const tensor_part& part : parts) spec.parts[spec.part_count++] = part;
    spec.columns = columns;
    spec.init = init;
    return spec;
  }
  // State that something other than the optimizer moves.
  static constexpr parameter_spec state(role kind, index_t size) {
    parameter_spec spec = vector(kind, size, initializer::zeros());
    spec.optimized = false;
    return spec;
  }
  constexpr parameter_spec stacked(index_t count) const {
    parameter_spec spec = *this;
    spec.experts = count;
    return spec;
  }

  // Stacked over experts of different widths: expert e has widths[e] rows in every part.
  constexpr parameter_spec stacked_rows(const expert_widths& each) const {
    parameter_spec spec = stacked(each.count);
    spec.widths = each;
    for (int part = 0; part < part_count; ++part) spec.parts[part].rows = each.largest();
    return spec;
  }
  // The same for columns.
  constexpr parameter_spec stacked_columns(const expert_widths& each) const {
    parameter_spec spec = stacked(each.count);
    spec.widths = each;
    spec.widths_are_columns = true;
    spec.columns = each.largest();
    return spec;
  }

  constexpr bool present() const { return part_count > 0; }
  constexpr index_t rows() const {
    index_t sum = 0;
    for (int part = 0; part < part_count; ++part) sum += parts[part].rows;
    return sum;
  }
  // Extents of one expert's share; those of all when the parameter is not stacked.
  constexpr index_t part_rows(int part, index_t expert) const {
    return widths.count > 0 && !widths_are_columns ? widths[expert] : parts[part].rows;
  }
  constexpr index_t columns_of(index_t expert) const {
    return widths.count > 0 && widths_are_columns ? widths[expert] : columns;
  }
  // Elements of all.
  constexpr index_t size() const {
    const index_t largest = rows() * (columns > 0 ? columns : 1);
    if (widths.count > 0) return largest / widths.largest() * widths.sum();
    return largest * (experts > 0 ? experts : 1);
  }
  // Elements of one expert's share, on average where widths differ (rounded down), or of all when it is not stacked.
  constexpr index_t size_per_expert() const { return size() / (experts > 0 ? experts : 1); }
};

}  // namespace graft
