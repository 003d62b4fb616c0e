// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The views that ops take, in the memory of their context. T is deduced from the output alone, so that inputs
// convert to views of const elements.

#include <cstdint>
#include <type_traits>

#include <graft/core/dtype.hpp>
#include <graft/core/view.hpp>

namespace graft {

template <class Context, class T>
using vector_of = view<T, 1, typename Context::space>;
template <class Context, class T>
using matrix_of = view<T, 2, typename Context::space>;
template <class Context, class T>
using const_vector_of = view<const std::type_identity_t<T>, 1, typename Context::space>;
template <class Context, class T>
using const_matrix_of = view<const std::type_identity_t<T>, 2, typename Context::space>;

}  // namespace graft
