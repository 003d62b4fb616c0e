// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Catch2 3 where it is found, else 2.13. Tests use what both know: TEST_CASE, TEMPLATE_TEST_CASE, SECTION, GENERATE,
// REQUIRE, CHECK, INFO, CAPTURE. A test name holds no semicolon (CTest splits there).

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
