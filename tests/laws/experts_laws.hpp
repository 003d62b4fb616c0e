// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The laws of Experts (policies/experts/experts.hpp), for any form and any precision.
//
//   experts_laws<fp64>(adapted_experts{}, {.width = 6, .hidden = 5, .counts = {3, 0, 4}});

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/core/parameter_tree.hpp>
#include <graft/layers/compute.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"

namespace graft::test {

struct experts_case {
  index_t width = 6, hidden = 5;
  std::vector<index_t> counts = {3, 0, 4};  // rows of each expert
  index_t unused = 2;                       // rows behind them

  index_t experts() const { return static_cast<index_t>(counts.size()); }
  index_t used() const { return std::accumulate(counts.begin(), counts.end(), index_t{0}); }
  index_t rows() const { return used() + unused; }
  std::vector<std::int32_t> offsets() const {
    std::vector<std::int32_t> ends = {0};
    for (const index_t count : counts) ends.push_back(ends.back() + static_cast<std::int32_t>(count));
    return ends;
  }
};

// The parameters of one form, its rows, and what forward and backward make of them.
template <class P, class Form>
struct experts_run {
  using compute_type = compute<P, cpu>;
  using T = typename compute_type::storage;
  using M = typename compute_type::master;
  using specs_type = typename Form::template parameters<parameter_spec>;
  using weights_type = typename Form::template parameters<typename compute_type::weight>;
  using gradients_type = typename Form::template parameters<typename compute_type::gradient>;

  Form form;
  experts_case sizes;
  specs_type specs;
  parameter_layout layout;
  std::vector<T> values;
  std::vector<M> gradients;
  tensor<T> x, d_out, out, d_x;
  std::vector<std::int32_t> offsets;

  // Weights are normal with this deviation, rounded to T; so are x and d_out.
  experts_run(const Form& of, const experts_case& extents, double deviation = 0.5)
      : form(of),
        sizes(extents),
        specs(of.specs(extents.width, extents.hidden, extents.experts())),
        layout(make_layout(specs)),
        values(static_cast<std::size_t>(layout.size), T(0.0f)),
        gradients(values.size(), M(0)),
        x(tensor<T>::random(extents.rows(), extents.width, 2)),
        d_out(tensor<T>::random(extents.rows(), extents.width, 3, 0.5)),
        out(extents.rows(), extents.width),
        d_x(extents.rows(), extents.width),
        offsets(extents.offsets()) {
    const random_source draw{1, random_stream::data};
    for (std::size_t i = 0; i < layout.tensors.size(); ++i)
      for (index_t j = 0; j < layout.tensors[i].size(); ++j)
        values[static_cast<std::size_t>(layout.tensors[i].offset + j)] =
            narrow<T>(deviation * draw.normal(i, static_cast<std::uint64_t>(j)));
  }

  std::pair<T*, const tensor_entry*> find(const std::string& name) {
    const tensor_entry* entry = layout.find(name + ".weight");
    REQUIRE(entry != nullptr);
    return {values.data() + entry->offset, entry};
  }
  bool has(const std::string& name) const { return layout.find(name + ".weight") != nullptr; }
  // A tensor in fp64.
  tensor<double> matrix(const std::string& name) {
    const auto [data, entry] = find(name);
    tensor<double> result(entry->rows, entry->columns);
    for (index_t i = 0; i < entry->size(); ++i) result.values[static_cast<std::size_t>(i)] = widen(data[i]);
    return result;
  }

  // frozen: a role whose gradients are absent.
  void run(context<cpu>& ctx, const role* frozen = nullptr) {
    const auto weights = bind_parameters<weights_type>(specs, vector_view<T>(values.data(), layout.size));
    auto views = bind_parameters<gradients_type>(specs, vector_view<M>(gradients.data(), layout.size));
    if (frozen != nullptr)
      zip_leaves(specs, views, [&](const parameter_spec& spec, typename compute_type::gradient& leaf) {
        if (spec.kind == *frozen) leaf = {};
      });
    const vector_view<const std::int32_t> ends(offsets.data(), sizes.experts() + 1);
    workspace_scope scope(ctx);
    const auto saved = form.template forward<compute_type>(ctx, weights, ends, std::as_const(x).matrix());
    copy_used(out, saved.results);
    for (index_t row = 0; row < sizes.rows(); ++row)
      std::copy_n(d_out.matrix().row(row), sizes.width, saved.results.row(row));
    copy_used(d_x, form.template backward<compute_type>(ctx, weights, views, saved, ends, std::as_const(x).matrix()));
  }
  // sum(d_out * out) over the rows in use.
  double loss(context<cpu>& ctx) {
    workspace_scope scope(ctx);
    const auto weights = bind_parameters<weights_type>(specs, vector_view<T>(values.data(), layout.size));
    const auto saved = form.template forward<compute_type>(
        ctx, weights, vector_view<const std::int32_t>(offsets.data(), sizes.experts() + 1), std::as_const(x).matrix());
    double sum = 0;
    for (index_t row = 0; row < sizes.used(); ++row)
      for (index_t i = 0; i < sizes.width; ++i) sum += d_out.at(row, i) * widen(saved.results(row, i));
    return sum;
  }

 private:
  void copy_used(tensor<T>& to, const view<T, 2>& from) const {
    for (index_t row = 0; row < sizes.used(); ++row) std::copy_n(from.row(row), sizes.width, to.matrix().row(row));
  }
};

template <class P, class Form>
void experts_laws(const Form& form, const experts_case& sizes) {
  CAPTURE(Form::name, P::name, sizes.counts);
  using run_type = experts_run<P, Form>;
  using M = typename run_type::M;
  context<cpu> ctx({.threads = 1});
  run_type plain(form, sizes);
  plain.run(ctx);

  if constexpr (std::is_same_v<M, double>) {
    run_type checked(form, sizes);
    gradient_options options;
    options.name = [&](std::size_t i) { return "element " + std::to_string(i); };
    CHECK(gradient_mismatch([&] { return checked.loss(ctx); }, checked.values, plain.gradients, options) == "");
    std::vector<double> d_x = plain.d_x.values;
    d_x.resize(static_cast<std::size_t>(sizes.used() * sizes.width));
    CHECK(gradient_mismatch([&] { return checked.loss(ctx); }, std::span<double>(checked.x.values).first(d_x.size()),
                            d_x) == "");
  }

  {  // Gradients are added; what an expert without rows had stays, bit for bit.
    run_type again(form, sizes);
    std::fill(again.gradients.begin(), again.gradients.end(), M(0.5));
    again.run(ctx);
    for (const tensor_entry& entry : again.layout.tensors)
      for (index_t i = entry.offset; i < entry.offset + entry.size(); ++i) {
        const M got = again.gradients[static_cast<std::size_t>(i)], was = plain.gradients[static_cast<std::size_t>(i)];
        if (sizes.counts[static_cast<std::size_t>(entry.expert)] == 0)
          REQUIRE((got == M(0.5) && was == M(0)));
        else  // 0.5 comes first in the sum or last
          REQUIRE(std::abs(got - M(0.5) - was) <=
                  static_cast<double>(sizes.rows() + 4) * unit_roundoff<M> * (1 + 16 * std::abs(was)));
      }
  }

  {  // Rows beyond those in use are not read.
    run_type poisoned(form, sizes);
    for (index_t row = sizes.used(); row < sizes.rows(); ++row)
      for (index_t i = 0; i < sizes.width; ++i)
        poisoned.x(row, i) = poisoned.d_out(row, i) = narrow<typename run_type::T>(NAN);
    poisoned.run(ctx);
    CHECK(same_bits(poisoned.out, plain.out));
    CHECK(same_bits(poisoned.d_x, plain.d_x));
    CHECK(poisoned.gradients == plain.gradients);
  }

  for (const role frozen : {role::ffn, role::adapter}) {  // What is frozen has no effect on the rest.
    run_type some(form, sizes);
    some.run(ctx, &frozen);
    CHECK(same_bits(some.out, plain.out));
    CHECK(same_bits(some.d_x, plain.d_x));
    for (const tensor_entry& entry : some.layout.tensors) {
      const auto begin = some.gradients.begin() + entry.offset, end = begin + entry.size();
      if (entry.kind == frozen)
        CHECK(std::all_of(begin, end, [](M value) { return value == M(0); }));
      else
        CHECK(std::equal(begin, end, plain.gradients.begin() + entry.offset));
    }
  }

  {  // The last row of every expert changes: the results of the others do not.
    run_type other(form, sizes);
    for (index_t e = 0; e < sizes.experts(); ++e)
      if (sizes.counts[static_cast<std::size_t>(e)] > 0)
        other.x(other.offsets[static_cast<std::size_t>(e) + 1] - 1, 0) = narrow<typename run_type::T>(3);
    other.run(ctx);
    for (index_t e = 0; e < sizes.experts(); ++e)
      for (index_t row = other.offsets[static_cast<std::size_t>(e)];
           row < other.offsets[static_cast<std::size_t>(e) + 1]; ++row) {
        const auto begin = other.out.values.begin() + row * sizes.width;
        const bool same = std::equal(begin, begin + sizes.width, plain.out.values.begin() + row * sizes.width,
                                     [](auto a, auto b) { return widen(a) == widen(b); });
        CHECK(same == (row + 1 != other.offsets[static_cast<std::size_t>(e) + 1]));
      }
  }
}

}  // namespace graft::test
