// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The numbers of a policy by name: a policy that has some lists them once,
//
//   static constexpr auto options() { return std::tuple(option("coefficient", &my_loss::coefficient)); }
//
// and command lines, graft.json and the signature of a run are derived from the list.

#include <cmath>
#include <concepts>
#include <string>
#include <tuple>

#include <graft/core/error.hpp>
#include <graft/policies/balancer/balancer.hpp>

namespace graft {

// One of them: its name and the member (double, int, index_t or bool) that holds it.
template <class Policy, class Value>
struct option {
  using pointer = Value Policy::*;  // nvcc writes a declarator of this kind so that host compilers warn
  const char* name;
  pointer member;
  constexpr option(const char* text, Value Policy::*value) : name(text), member(value) {}
};

template <class P>
concept has_options = requires {
  std::remove_const_t<P>::options();
};

// Calls visit(name, value) for every option of a policy and of what it is made of: "gate.jitter", "score.scale",
// "switch_loss.coefficient" of all<switch_loss, z_loss>. value is a reference, const where the policy is.
template <class Policy, class Visit>
void for_each_option(Policy& policy, const Visit& visit, const std::string& prefix = {}) {
  if constexpr (has_options<Policy>)
    std::apply([&](const auto&... each) { (visit(prefix + each.name, policy.*(each.member)), ...); },
               std::remove_const_t<Policy>::options());
  if constexpr (requires { policy.gate; }) for_each_option(policy.gate, visit, prefix + "gate.");
  if constexpr (requires { policy.score; }) for_each_option(policy.score, visit, prefix + "score.");
  if constexpr (requires { policy.select; }) for_each_option(policy.select, visit, prefix + "select.");
  if constexpr (requires { policy.weigh; }) for_each_option(policy.weigh, visit, prefix + "weigh.");
  if constexpr (requires { policy.experts_form; }) for_each_option(policy.experts_form, visit, prefix);
  if constexpr (requires { policy.widths.values; }) {  // of experts that differ: "count", then "width_0", ...
    visit(prefix + "count", policy.widths.count);
    for (int i = 0; i < policy.widths.count && i < policy.widths.most; ++i)
      visit(prefix + "width_" + std::to_string(i), policy.widths.values[i]);
  }
  if constexpr (requires { policy.base; }) for_each_option(policy.base, visit, prefix);
  if constexpr (BalancerList<std::remove_const_t<Policy>>)
    policy.for_each([&](auto& single) {
      for_each_option(single, visit, prefix + std::remove_cvref_t<decltype(single)>::name + ".");
    });
}

namespace detail {

// Errors: no finite number, or a fraction for an option that counts.
template <class Number>
void assign_option(Number& member, const std::string& name, double value) {
  GRAFT_CHECK(std::isfinite(value), "expected a finite number for the option ", name, ", got ", value);
  const auto number = static_cast<Number>(value);
  GRAFT_CHECK(static_cast<double>(number) == value, "expected a whole number for the option ", name, ", got ", value);
  member = number;
}

}  // namespace detail

// Sets one option. Errors: a name that the policy does not have, with those that it has; a value that it cannot have.
template <class Policy>
void set_option(Policy& policy, const std::string& name, double value) {
  std::string known;
  bool found = false;
  for_each_option(policy, [&](const std::string& each, auto& member) {
    known += (known.empty() ? "" : ", ") + each;
    if (each != name) return;
    found = true;
    detail::assign_option(member, name, value);
  });
  GRAFT_CHECK(found, Policy::name, ": expected one of the options ", known.empty() ? "(it has none)" : known, ", got ",
              name);
}

}  // namespace graft
