// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// All of graft in one of the projects: reading it takes a while.
#if defined(ALL_HEADERS)
#include <graft/graft.hpp>
#endif
#include <graft/core/philox.hpp>
#include <graft/core/view.hpp>
#include <graft/version.hpp>
