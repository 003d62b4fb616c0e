// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Copies and zeros on CUDA, in the order of the context's stream.

#include <concepts>
#include <cstddef>
#include <type_traits>

#include <graft/backend/cuda/context.cuh>

namespace graft {

namespace detail {

inline void copy_bytes(context<cuda>& ctx, void* target, const void* source, std::size_t bytes, cudaMemcpyKind kind) {
  if (bytes != 0) GRAFT_CUDA(cudaMemcpyAsync(target, source, bytes, kind, ctx.stream()));
}

}  // namespace detail

// Copies source to target. Requires: both contiguous, equal sizes, no overlap.
template <class T, int TargetRank, class S, int SourceRank>
requires std::same_as<T, std::remove_const_t<S>>
void copy(context<cuda>& ctx, const view<T, TargetRank, device_space>& target,
          const view<S, SourceRank, device_space>& source) {
  GRAFT_CHECK(target.size() == source.size(), "copy: expected equal sizes, got target=", target.size(),
              ", source=", source.size());
  GRAFT_CHECK(target.contiguous() && source.contiguous(), "copy: expected contiguous views, got one with strides");
  detail::copy_bytes(ctx, target.data, source.data, static_cast<std::size_t>(target.size()) * sizeof(T),
                     cudaMemcpyDeviceToDevice);
}

// The elements of a contiguous view to and from plain host memory. Both wait: when they return the host memory
// holds the elements, or may be used again. They are for the edge of a step, not for its inside.
template <class T, int Rank>
void copy_to_host(context<cuda>& ctx, std::remove_const_t<T>* target, const view<T, Rank, device_space>& source) {
  GRAFT_CHECK(source.contiguous(), "copy_to_host: expected a contiguous view, got one with strides");
  detail::copy_bytes(ctx, target, source.data, static_cast<std::size_t>(source.size()) * sizeof(T),
                     cudaMemcpyDeviceToHost);
  ctx.synchronize();
}
template <class T, int Rank>
void copy_from_host(context<cuda>& ctx, const view<T, Rank, device_space>& target,
                    const std::type_identity_t<T>* source) {
  GRAFT_CHECK(target.contiguous(), "copy_from_host: expected a contiguous view, got one with strides");
  detail::copy_bytes(ctx, target.data, source, static_cast<std::size_t>(target.size()) * sizeof(T),
                     cudaMemcpyHostToDevice);
  ctx.synchronize();
}

// Sets every element to zero. Requires: contiguous.
template <class T, int Rank>
void fill_zero(context<cuda>& ctx, const view<T, Rank, device_space>& target) {
  GRAFT_CHECK(target.contiguous(), "fill_zero: expected a contiguous view, got one with strides");
  const std::size_t bytes = static_cast<std::size_t>(target.size()) * sizeof(T);
  if (bytes != 0) GRAFT_CUDA(cudaMemsetAsync(target.data, 0, bytes, ctx.stream()));
}

}  // namespace graft
