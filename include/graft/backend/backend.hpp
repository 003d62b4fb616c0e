// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What every backend shares: the tags that name backends, the context that every function takes first, and
// the few words that products and contexts have in common.

#include <concepts>
#include <string>

#include <graft/core/host_device.hpp>
#include <graft/core/view.hpp>

namespace graft {

// Tags. A backend's headers define context<Tag> and overloads of the functions below on that context.
struct cpu {
  using space = host_space;
  static constexpr const char* name = "cpu";
};
struct cuda {
  using space = device_space;
  static constexpr const char* name = "cuda";
};

struct context_options {
  int threads = 0;  // CPU threads, 0: what OpenMP would take
  int device = 0;   // index of the CUDA device
};

// Everything that work on one device needs: threads or a stream, library handles, workspace. One context
// belongs to one caller at a time. Defined in backend/cpu/context.hpp and backend/cuda/context.cuh.
template <class Backend>
class context;

// Whether a product replaces its output or adds to it.
enum class accumulate : bool { no, yes };

// What functions that run on any backend ask of their first argument. Beside the members below a context has
//   template <class T> allocate(e0, e1, ...) -> view<T, rank, space>
// uninitialised workspace that lives until the enclosing workspace_scope (backend/arena.hpp) ends, and these
// free functions, found through the context:
//   backend/rows.hpp      launch_rows, launch_elements
//   whole arrays          copy, copy_to_host, copy_from_host, fill_zero, exclusive_scan, counting_sort, argsort_rows
//   products              gemm_nt, gemm_nn, gemm_tn, grouped_gemm_nt, grouped_gemm_nn, grouped_gemm_tn
// Laws: same inputs, same bits, whatever the number of threads; work is done in the order of the calls.
template <class C>
concept Context = requires(C& ctx) {
  typename C::backend;
  typename C::space;
  ctx.workspace();
  ctx.synchronize();
  { ctx.threads() } -> std::convertible_to<int>;
  { ctx.device_name() } -> std::convertible_to<std::string>;
};

}  // namespace graft
