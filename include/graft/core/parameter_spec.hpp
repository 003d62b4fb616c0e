// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a layer says about one of its parameters, once: role, extents, names of its parts in a checkpoint,
// initial distribution. Everything else (allocation, files, merging, freezing, counting) is derived from it.

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
  enum class kind { zeros, ones, normal };
  kind distribution = kind::zeros;
  double stddev = 0;

  static constexpr initializer zeros() { return {kind::zeros, 0}; }
  static constexpr initializer ones() { return {kind::ones, 0}; }
  static constexpr initializer normal(double stddev) { return {kind::normal, stddev}; }
};

// Rows of a fused weight that a checkpoint holds as a tensor of its own: {"q_proj", 512}.
struct tensor_part {
  const char* name = "";  // empty: the name of the struct member
  index_t rows = 0;
};

// One parameter: (experts,) rows, columns in memory. A default-constructed spec is an absent parameter: it takes no
// memory and appears in no file (lm_head of a tied model).
struct parameter_spec {
  static constexpr int max_parts = 3;

  role kind = role::embedding;
  tensor_part parts[max_parts] = {};
  int part_count = 0;
  index_t columns = 0;  // 0: a vector of `rows` elements
  index_t experts = 0;  // above 0: one such matrix per expert, stacked
  initializer init{};
  bool decay = true;  // weight decay applies

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
  constexpr parameter_spec stacked(index_t count) const {
    parameter_spec spec = *this;
    spec.experts = count;
    return spec;
  }

  constexpr bool present() const { return part_count > 0; }
  constexpr index_t rows() const {
    index_t sum = 0;
    for (int part = 0; part < part_count; ++part) sum += parts[part].rows;
    return sum;
  }
  // Elements of one expert's share, or of all when the parameter is not stacked.
  constexpr index_t size_per_expert() const { return rows() * (columns > 0 ? columns : 1); }
  constexpr index_t size() const { return size_per_expert() * (experts > 0 ? experts : 1); }
};

}  // namespace graft
