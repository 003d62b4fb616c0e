// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// any_mixture: a Mixture that is chosen at run time. transformer<any_mixture<Compute>, Compute> is one type for all of
// them, so a program that offers many routers and layouts by name compiles each mixture's layer once and everything
// else once. The work of a layer is the same code as in transformer<mixture<R, B, L>, Compute>, behind one virtual call
// a layer; parameters have the same names and lie in the same order, so model directories do too.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <graft/layers/block.hpp>

namespace graft {

namespace detail {

// What any_mixture asks of the mixture that it holds. One object serves every layer; what a layer saves for its
// backward pass lies in slots by layer.
template <class Compute>
class mixture_interface {
 public:
  using context_type = typename Compute::context_type;
  using space = typename Compute::space;
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using weights_type = named_parameters<typename Compute::weight>;
  using gradients_type = named_parameters<typename Compute::gradient>;

  virtual ~mixture_interface() = default;
  virtual std::unique_ptr<mixture_interface> clone() const = 0;
  virtual bool causal() const = 0;
  virtual bool reads_context() const = 0;
  virtual named_parameters<parameter_spec> specs(const transformer_shape&) const = 0;
  virtual void check(const transformer_shape&) const = 0;
  virtual double active_parameters(const transformer_shape&, index_t block) const = 0;
  virtual index_t experts(const transformer_shape&) const = 0;
  virtual routing_load load(const transformer_shape&) const = 0;
  virtual std::string name() const = 0;
  virtual std::vector<std::pair<std::string, double>> options() const = 0;
  virtual bool set_option(const std::string& name, double value) = 0;
  virtual view<M, 1, space> selection_bias(const gradients_type& master) const = 0;
  virtual void forward(context_type&, const weights_type&, const routing_pass<M, space>&, view<const T, 2, space> x,
                       view<T, 2, space> out) = 0;
  virtual void backward(context_type&, const weights_type&, const gradients_type&, const routing_pass<M, space>&,
                        view<const T, 2, space> x, view<T, 2, space> d_x, view<const T, 2, space> d_out,
                        double auxiliary_scale) = 0;
  virtual void end_step(context_type&, const gradients_type& master, view<M, 1, space> load) = 0;
};

template <class Mixture, class Compute>
class held_mixture final : public mixture_interface<Compute> {
  using base = mixture_interface<Compute>;
  using typename base::context_type;
  using typename base::gradients_type;
  using typename base::M;
  using typename base::space;
  using typename base::T;
  using typename base::weights_type;
  using weights = typename Mixture::template parameters<typename Compute::weight>;
  using gradients = typename Mixture::template parameters<typename Compute::gradient>;
  using saved = typename Mixture::template saved<Compute>;

 public:
  explicit held_mixture(const Mixture& mixture) : mixture_(mixture) {}
  std::unique_ptr<base> clone() const override { return std::make_unique<held_mixture>(mixture_); }
  bool causal() const override { return mixture_.causal(); }
  bool reads_context() const override { return mixture_reads_context(mixture_); }
  named_parameters<parameter_spec> specs(const transformer_shape& shape) const override {
    named_parameters<parameter_spec> result;
    const auto own = mixture_.specs(shape);
    for_each_named_leaf(
        own, [&](const std::string& name, const parameter_spec& spec) { result.leaves.emplace_back(name, spec); });
    return result;
  }
  void check(const transformer_shape& shape) const override { mixture_.check(shape); }
  double active_parameters(const transformer_shape& shape, index_t block) const override {
    return mixture_.active_parameters(mixture_.specs(shape), shape, block);
  }
  index_t experts(const transformer_shape& shape) const override { return mixture_.experts(shape); }
  routing_load load(const transformer_shape& shape) const override { return mixture_.load(shape); }
  std::string name() const override { return Mixture::name_of(mixture_); }
  std::vector<std::pair<std::string, double>> options() const override {
    std::vector<std::pair<std::string, double>> all;
    Mixture::visit_options(mixture_, [&](const std::string& name, const auto& value) {
      all.emplace_back(name, static_cast<double>(value));
    });
    return all;
  }
  bool set_option(const std::string& wanted, double value) override {
    bool found = false;
    Mixture::visit_options(mixture_, [&](const std::string& name, auto& member) {
      if (name != wanted) return;
      found = true;
      detail::assign_option(member, name, value);
    });
    return found;
  }
  view<M, 1, space> selection_bias(const gradients_type& master) const override {
    return mixture_.template selection_bias<Compute>(typed<gradients>(master));
  }
  void forward(context_type& context, const weights_type& named, const routing_pass<M, space>& pass,
               view<const T, 2, space> x, view<T, 2, space> out) override {
    const auto layer = static_cast<std::size_t>(pass.layer);
    if (saved_.size() <= layer) saved_.resize(layer + 1);
    saved_[layer] = mixture_.template forward<Compute>(context, typed<weights>(named), pass, x, out);
  }
  void backward(context_type& context, const weights_type& named, const gradients_type& named_gradients,
                const routing_pass<M, space>& pass, view<const T, 2, space> x, view<T, 2, space> d_x,
                view<const T, 2, space> d_out, double auxiliary_scale) override {
    mixture_.template backward<Compute>(context, typed<weights>(named), typed<gradients>(named_gradients), pass,
                                        saved_[static_cast<std::size_t>(pass.layer)], x, d_x, d_out, auxiliary_scale);
  }
  void end_step(context_type& context, const gradients_type& master, view<M, 1, space> load) override {
    mixture_.template end_step<Compute>(context, typed<gradients>(master), load);
  }

 private:
  // The leaves come in the order of the declaration.
  template <class Tree, class Named>
  static Tree typed(const Named& named) {
    Tree tree;
    std::size_t next = 0;
    for_each_leaf(tree, [&](auto& leaf) { leaf = named.leaves[next++].second; });
    return tree;
  }

  Mixture mixture_;
  std::vector<saved> saved_;
};

}  // namespace detail

template <class Compute>
class any_mixture {
 public:
  static constexpr bool present = true;
  template <class Leaf>
  using parameters = named_parameters<Leaf>;
  // What a layer saves stays with the mixture that is held.
  template <class>
  struct saved {};

  template <class Mixture>
  explicit any_mixture(const Mixture& mixture)
      : held_(std::make_unique<detail::held_mixture<Mixture, Compute>>(mixture)) {
    static_assert(std::is_same_v<detail::attention_of<Mixture>, single_attention>,
                  "graft::any_mixture: what it should hold has attention experts, which it has no place for. Put them "
                  "around it, with_attention_experts over any_mixture.");
  }
  any_mixture(const any_mixture& other) : held_(other.held_->clone()) {}
  any_mixture(any_mixture&&) noexcept = default;
  any_mixture& operator=(const any_mixture& other) {
    held_ = other.held_->clone();
    return *this;
  }
  any_mixture& operator=(any_mixture&&) noexcept = default;

  bool causal() const { return held_->causal(); }
  bool reads_context() const { return held_->reads_context(); }
  named_parameters<parameter_spec> specs(const transformer_shape& shape) const { return held_->specs(shape); }
  void check(const transformer_shape& shape) const { held_->check(shape); }
  double active_parameters(const named_parameters<parameter_spec>&, const transformer_shape& shape,
                           index_t block) const {
    return held_->active_parameters(shape, block);
  }
  index_t experts(const transformer_shape& shape) const { return held_->experts(shape); }
  routing_load load(const transformer_shape& shape) const { return held_->load(shape); }
  static std::string name_of(const any_mixture& mixture) { return mixture.held_->name(); }

  // Every number of the mixture by name: "router.gate.jitter", "balancer.switch_loss.coefficient".
  std::vector<std::pair<std::string, double>> options() const { return held_->options(); }
  // Errors: a name that the mixture does not have, with those that it has; a fraction for a whole number.
  void set_option(const std::string& name, double value) {
    if (held_->set_option(name, value)) return;
    std::string known;
    for (const auto& [each, current] : held_->options()) known += (known.empty() ? "" : ", ") + each;
    detail::raise("expected one of the options ", known, ", got ", name);
  }

  template <class C>
  auto selection_bias(const named_parameters<typename C::gradient>& master) const {
    return held_->selection_bias(master);
  }
  template <class C>
  saved<C> forward(typename C::context_type& context, const named_parameters<typename C::weight>& weights,
                   const routing_pass<typename C::master, typename C::space>& pass,
                   view<const typename C::storage, 2, typename C::space> x,
                   view<typename C::storage, 2, typename C::space> out) const {
    held_->forward(context, weights, pass, x, out);
    return {};
  }
  template <class C>
  void backward(typename C::context_type& context, const named_parameters<typename C::weight>& weights,
                const named_parameters<typename C::gradient>& gradients,
                const routing_pass<typename C::master, typename C::space>& pass, const saved<C>&,
                view<const typename C::storage, 2, typename C::space> x,
                view<typename C::storage, 2, typename C::space> d_x,
                view<const typename C::storage, 2, typename C::space> d_out, double auxiliary_scale) const {
    held_->backward(context, weights, gradients, pass, x, d_x, d_out, auxiliary_scale);
  }
  template <class C>
  void end_step(typename C::context_type& context, const named_parameters<typename C::gradient>& master,
                view<typename C::master, 1, typename C::space> load) const {
    held_->end_step(context, master, load);
  }

 private:
  std::unique_ptr<detail::mixture_interface<Compute>> held_;
};

}  // namespace graft
