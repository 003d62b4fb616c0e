// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#if __has_include(<graft/graft.hpp>)
#include <graft/graft.hpp>
#endif
#include <graft/core/philox.hpp>
#include <graft/core/view.hpp>
#include <graft/version.hpp>
