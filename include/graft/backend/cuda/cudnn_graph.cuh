// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// cuDNN's graphs through its C interface: tensors, the operations between them, and a plan that computes them. Only
// what attention needs. Present where the build defines GRAFT_HAS_CUDNN, which it does beside linking cuDNN 9.11 or
// later. Source: NVIDIA, cuDNN backend API reference.

#if defined(GRAFT_HAS_CUDNN)

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <cudnn.h>

#include <graft/core/error.hpp>

static_assert(CUDNN_VERSION >= 91100, "graft::cudnn: cuDNN is older than 9.11. Build without GRAFT_HAS_CUDNN.");

namespace graft::detail {

inline void check_cudnn(cudnnStatus_t status, const char* call, const char* file, int line) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char reason[512] = {};
  cudnnGetLastErrorString(reason, sizeof reason - 1);
  raise("cuDNN: ", call, " failed with ", cudnnGetErrorString(status), " (", reason, ") at ", file, ":", line);
}
#define GRAFT_CUDNN(...) ::graft::detail::check_cudnn((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

// What names the type of an attribute's values.
template <class T>
inline constexpr int cudnn_type = -1;
template <>
inline constexpr int cudnn_type<std::int64_t> = CUDNN_TYPE_INT64;
template <>
inline constexpr int cudnn_type<std::int32_t> = CUDNN_TYPE_INT32;
template <>
inline constexpr int cudnn_type<bool> = CUDNN_TYPE_BOOLEAN;
template <>
inline constexpr int cudnn_type<char> = CUDNN_TYPE_CHAR;
template <>
inline constexpr int cudnn_type<cudnnHandle_t> = CUDNN_TYPE_HANDLE;
template <>
inline constexpr int cudnn_type<cudnnDataType_t> = CUDNN_TYPE_DATA_TYPE;
template <>
inline constexpr int cudnn_type<cudnnPointwiseMode_t> = CUDNN_TYPE_POINTWISE_MODE;
template <>
inline constexpr int cudnn_type<cudnnReduceTensorOp_t> = CUDNN_TYPE_REDUCTION_OPERATOR_TYPE;
template <>
inline constexpr int cudnn_type<cudnnBackendHeurMode_t> = CUDNN_TYPE_HEUR_MODE;
template <>
inline constexpr int cudnn_type<cudnnBackendNumericalNote_t> = CUDNN_TYPE_NUMERICAL_NOTE;
template <>
inline constexpr int cudnn_type<cudnnBackendDescriptor_t> = CUDNN_TYPE_BACKEND_DESCRIPTOR;

// One of cuDNN's descriptors: made, given attributes, finalised, destroyed. cudnnBackendDescriptor_t is a pointer.
class cudnn_descriptor {
 public:
  explicit cudnn_descriptor(cudnnBackendDescriptorType_t type) {
    GRAFT_CUDNN(cudnnBackendCreateDescriptor(type, &raw_));
  }
  cudnn_descriptor(cudnn_descriptor&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  cudnn_descriptor& operator=(cudnn_descriptor&& other) noexcept {
    std::swap(raw_, other.raw_);
    return *this;
  }
  ~cudnn_descriptor() {
    if (raw_ != nullptr) (void)cudnnBackendDestroyDescriptor(raw_);
  }

  template <class V>
  void set(cudnnBackendAttributeName_t name, const V* values, std::size_t count) {
    static_assert(cudnn_type<V> >= 0, "graft::cudnn_descriptor: no attribute has this type. Add it to cudnn_type.");
    GRAFT_CUDNN(cudnnBackendSetAttribute(raw_, name, static_cast<cudnnBackendAttributeType_t>(cudnn_type<V>),
                                         static_cast<std::int64_t>(count), values));
  }
  template <class V>
  void set(cudnnBackendAttributeName_t name, const V& value) {
    set(name, &value, 1);
  }
  void set(cudnnBackendAttributeName_t name, const cudnn_descriptor& value) { set(name, &value.raw_, 1); }
  // Addresses, which have the same type as raw descriptors.
  void set_addresses(cudnnBackendAttributeName_t name, void* const* values, std::size_t count) {
    GRAFT_CUDNN(cudnnBackendSetAttribute(raw_, name, CUDNN_TYPE_VOID_PTR, static_cast<std::int64_t>(count), values));
  }
  template <class V>
  void set(cudnnBackendAttributeName_t name, const std::vector<V>& values) {
    set(name, values.data(), values.size());
  }

  // Up to `most` values of an attribute.
  template <class V>
  std::vector<V> get(cudnnBackendAttributeName_t name, std::size_t most) const {
    std::vector<V> values(most);
    std::int64_t count = 0;
    GRAFT_CUDNN(cudnnBackendGetAttribute(raw_, name, static_cast<cudnnBackendAttributeType_t>(cudnn_type<V>),
                                         static_cast<std::int64_t>(most), &count, values.data()));
    values.resize(static_cast<std::size_t>(count) < most ? static_cast<std::size_t>(count) : most);
    return values;
  }
  // Descriptors are written into descriptors made beforehand; returns how many.
  std::size_t get(cudnnBackendAttributeName_t name, std::vector<cudnn_descriptor>& into) const {
    std::vector<cudnnBackendDescriptor_t> raw;
    for (const cudnn_descriptor& d : into) raw.push_back(d.raw_);
    std::int64_t count = 0;
    GRAFT_CUDNN(cudnnBackendGetAttribute(raw_, name, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                         static_cast<std::int64_t>(raw.size()), &count,
                                         raw.empty() ? nullptr : raw.data()));
    return static_cast<std::size_t>(count);
  }

  void finalize() { GRAFT_CUDNN(cudnnBackendFinalize(raw_)); }
  bool can_finalize() { return cudnnBackendFinalize(raw_) == CUDNN_STATUS_SUCCESS; }
  cudnnBackendDescriptor_t raw() const { return raw_; }

 private:
  cudnnBackendDescriptor_t raw_ = nullptr;
};

// Four axes: sequence, head, row, column; strides in elements.
using cudnn_axes = std::array<std::int64_t, 4>;

// A tensor of a graph. Its descriptor belongs to the graph.
struct cudnn_tensor {
  cudnnBackendDescriptor_t raw;
  cudnn_axes sizes;
};

// Operations in the order in which they are added, and the tensors between them. Arithmetic is in fp32.
class cudnn_graph {
 public:
  // In memory, found under `id` when the plan runs. Requires: 16-byte alignment.
  cudnn_tensor memory(std::int64_t id, cudnnDataType_t type, const cudnn_axes& sizes, const cudnn_axes& strides) {
    return tensor(id, type, sizes, strides, false, false);
  }
  // A number, read from the host under `id` when the plan runs.
  cudnn_tensor number(std::int64_t id) { return tensor(id, CUDNN_DATA_FLOAT, {1, 1, 1, 1}, {1, 1, 1, 1}, false, true); }
  // Not in memory.
  cudnn_tensor between(const cudnn_axes& sizes, cudnnDataType_t type = CUDNN_DATA_FLOAT) {
    return between(sizes, {sizes[1] * sizes[2] * sizes[3], sizes[2] * sizes[3], sizes[3], 1}, type);
  }
  cudnn_tensor between(const cudnn_axes& sizes, const cudnn_axes& strides, cudnnDataType_t type) {
    return tensor(next_++, type, sizes, strides, true, false);
  }

  // y = mode(x), mode(x, b), mode(x, b, t), element by element, sizes of 1 repeated.
  void apply(cudnnPointwiseMode_t mode, const cudnn_tensor& y, const cudnn_tensor& x, const cudnn_tensor* b = nullptr,
             const cudnn_tensor* t = nullptr, cudnnDataType_t arithmetic = CUDNN_DATA_FLOAT, std::int64_t axis = -1) {
    cudnn_descriptor& how = part(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    how.set(CUDNN_ATTR_POINTWISE_MODE, mode);
    how.set(CUDNN_ATTR_POINTWISE_MATH_PREC, arithmetic);
    if (axis >= 0) how.set(CUDNN_ATTR_POINTWISE_AXIS, axis);
    how.finalize();
    const cudnnBackendDescriptor_t raw_how = how.raw();
    cudnn_descriptor& operation = part(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, raw_how);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.raw);
    if (b != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b->raw);
    if (t != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t->raw);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y.raw);
    add(operation);
  }
  // The same into a new tensor of x's sizes.
  cudnn_tensor apply(cudnnPointwiseMode_t mode, const cudnn_tensor& x, const cudnn_tensor* b = nullptr) {
    const cudnn_tensor y = between(x.sizes);
    apply(mode, y, x, b);
    return y;
  }
  // c = a b, over the last two axes.
  void multiply(const cudnn_tensor& c, const cudnn_tensor& a, const cudnn_tensor& b) {
    cudnn_descriptor& how = part(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    how.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
    how.finalize();
    const cudnnBackendDescriptor_t raw_how = how.raw();
    cudnn_descriptor& operation = part(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, a.raw);
    operation.set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, b.raw);
    operation.set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, c.raw);
    operation.set(CUDNN_ATTR_OPERATION_MATMUL_DESC, raw_how);
    add(operation);
  }
  // y = x combined over the axes in which y is smaller.
  void reduce(cudnnReduceTensorOp_t mode, const cudnn_tensor& y, const cudnn_tensor& x) {
    cudnn_descriptor& how = part(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    how.set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    how.set(CUDNN_ATTR_REDUCTION_OPERATOR, mode);
    how.finalize();
    const cudnnBackendDescriptor_t raw_how = how.raw();
    cudnn_descriptor& operation = part(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x.raw);
    operation.set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y.raw);
    operation.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, raw_how);
    add(operation);
  }
  // y is x seen under other sizes and strides.
  void reshape(const cudnn_tensor& y, const cudnn_tensor& x) {
    cudnn_descriptor& operation = part(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x.raw);
    operation.set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y.raw);
    add(operation);
  }

  const std::vector<cudnnBackendDescriptor_t>& operations() const { return operations_; }

 private:
  cudnn_descriptor& part(cudnnBackendDescriptorType_t type) { return parts_.emplace_back(type); }
  void add(cudnn_descriptor& operation) {
    operation.finalize();
    operations_.push_back(operation.raw());
  }
  cudnn_tensor tensor(std::int64_t id, cudnnDataType_t type, const cudnn_axes& sizes, const cudnn_axes& strides,
                      bool between, bool number) {
    cudnn_descriptor& made = part(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    made.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
    made.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    made.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, std::int64_t{16});
    made.set(CUDNN_ATTR_TENSOR_DIMENSIONS, sizes.data(), sizes.size());
    made.set(CUDNN_ATTR_TENSOR_STRIDES, strides.data(), strides.size());
    if (between) made.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
    if (number) made.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, true);
    made.finalize();
    return {made.raw(), sizes};
  }

  std::vector<cudnn_descriptor> parts_;
  std::vector<cudnnBackendDescriptor_t> operations_;
  std::int64_t next_ = 1000;  // ids of tensors between; those of memory and numbers are below
};

// What computes a graph, with what it was made from.
struct cudnn_plan {
  cudnn_graph graph;
  cudnn_descriptor operations, choice, plan;
  std::size_t workspace_bytes;
};

// The first plan of cuDNN's heuristics that gives the same bits every time; none where there is none. `device` is a
// finalised device-properties descriptor. Without a handle the plan is for looking at: a plan runs where it was made
// with one.
inline std::optional<cudnn_plan> find_cudnn_plan(cudnn_graph graph, const cudnn_descriptor& device,
                                                 cudnnHandle_t handle) {
  cudnn_descriptor operations(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  operations.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, graph.operations());
  if (handle != nullptr) operations.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, handle);
  if (!operations.can_finalize()) return {};
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    cudnn_descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, operations);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, mode);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device);
    if (!heuristics.can_finalize()) continue;
    std::vector<cudnn_descriptor> found;
    const std::size_t count = heuristics.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, found);
    for (std::size_t i = 0; i < count; ++i) found.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    const auto filled = static_cast<std::ptrdiff_t>(heuristics.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, found));
    found.erase(found.begin() + filled, found.end());
    for (cudnn_descriptor& choice : found) {
      std::vector<cudnn_descriptor> engine;
      engine.emplace_back(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
      choice.get(CUDNN_ATTR_ENGINECFG_ENGINE, engine);
      bool same_bits = true;
      for (const auto note : engine[0].get<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                                                        CUDNN_NUMERICAL_NOTE_TYPE_COUNT))
        same_bits = same_bits && note != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
      if (!same_bits) continue;
      cudnn_descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      if (handle != nullptr) plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, handle);
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, choice);
      if (!plan.can_finalize()) continue;
      const std::int64_t bytes = plan.get<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, 1).at(0);
      return cudnn_plan{std::move(graph), std::move(operations), std::move(choice), std::move(plan),
                        static_cast<std::size_t>(bytes)};
    }
  }
  return {};
}

// Runs a plan on the handle's stream: pointers[i] is where the tensor of ids[i] lies.
inline void run_cudnn_plan(cudnnHandle_t handle, const cudnn_plan& plan, const std::vector<std::int64_t>& ids,
                           const std::vector<void*>& pointers, void* workspace) {
  cudnn_descriptor arguments(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  arguments.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids);
  arguments.set_addresses(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, pointers.data(), pointers.size());
  arguments.set_addresses(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &workspace, 1);
  arguments.finalize();
  GRAFT_CUDNN(cudnnBackendExecute(handle, plan.plan.raw(), arguments.raw()));
}

}  // namespace graft::detail

#endif
