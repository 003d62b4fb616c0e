// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A host tensor's double in the memory of a context, so that a test body is written once for every backend.

#include <vector>

#include <graft/backend/backend.hpp>
#include <graft/backend/buffer.hpp>

#include "reference.hpp"

namespace graft::test {

// Owns a copy of a tensor in the context's memory.
template <class Ctx, class T>
class resident {
 public:
  using space = typename Ctx::space;

  resident(Ctx& ctx, const tensor<T>& source)
      : ctx_(&ctx), memory_(source.rows * source.columns), rows_(source.rows), columns_(source.columns) {
    copy_from_host(ctx, memory_.view(), source.values.data());
  }
  matrix_view<T, space> matrix() const { return memory_.view(rows_, columns_); }
  vector_view<T, space> vector() const { return memory_.view(); }
  tensor<T> get() const {
    tensor<T> result(rows_, columns_);
    copy_to_host(*ctx_, result.values.data(), memory_.view());
    return result;
  }

 private:
  Ctx* ctx_;
  buffer<T, space> memory_;
  index_t rows_, columns_;
};

// A vector as a tensor of one row.
template <class T>
tensor<T> one_row(const std::vector<T>& values) {
  tensor<T> result;
  result.rows = 1;
  result.columns = static_cast<index_t>(values.size());
  result.values = values;
  return result;
}

}  // namespace graft::test
