// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::view: the rank is not 1 to 4. Merge or split axes.

#include <graft/core/view.hpp>

graft::view<float, 4> allowed;

#ifdef GRAFT_MUST_FAIL
graft::view<float, 5> refused;
#endif
