// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: device_space.*to.*host_space|could not convert|no known conversion

// A function of the CPU does not take a view of device memory.

#include <graft/core/view.hpp>

void on_the_cpu(graft::matrix_view<const float, graft::host_space>);

void call() {
  on_the_cpu(graft::matrix_view<float, graft::host_space>());
#ifdef GRAFT_MUST_FAIL
  on_the_cpu(graft::matrix_view<float, graft::device_space>());
#endif
}
