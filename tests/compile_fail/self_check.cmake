# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# usage: cmake -DCOMPILER=<path> -DWORK=<folder> -P self_check.cmake
# The compile-fail check accepts a good sample and refuses five bad ones, each with its sentence.

cmake_minimum_required(VERSION 3.24)

function(expect_verdict sample content sentence)
  set(source "${WORK}/${sample}.cpp")
  file(WRITE "${source}" "${content}")
  execute_process(
    COMMAND ${CMAKE_COMMAND} "-DSOURCE=${source}" "-DCOMPILERS=${COMPILER}" "-DFLAGS=-std=c++20,-fsyntax-only"
      -P "${CMAKE_CURRENT_LIST_DIR}/check.cmake"
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  string(REGEX REPLACE "[ \n]+" " " output "${output}")
  if(sentence STREQUAL "" AND NOT status EQUAL 0)
    message(FATAL_ERROR "${sample}: expected to be accepted, got: ${output}")
  elseif(NOT sentence STREQUAL "" AND (status EQUAL 0 OR NOT output MATCHES "${sentence}"))
    message(FATAL_ERROR "${sample}: expected '${sentence}', got status ${status}: ${output}")
  endif()
endfunction()

set(good [[
#ifdef GRAFT_MUST_FAIL
static_assert(false, "graft::sample: the wrong thing. Do the right one.");
#endif
]])
expect_verdict(good "// expect: graft::sample: the wrong thing\n${good}" "")
expect_verdict(other_message "// expect: graft::other: something else\n${good}" "expected the message")
expect_verdict(no_expectation "${good}" "expected one line")
expect_verdict(no_switch "// expect: graft::sample\n" "has no line")
expect_verdict(broken_control "// expect: graft::sample\n${good}int x = absent;\n" "the control does not compile")
expect_verdict(compiles "// expect: graft::sample\n#ifdef GRAFT_MUST_FAIL\nint x = 1;\n#endif\n" "compiles with GRAFT_MUST_FAIL")
message(STATUS "the compile-fail check accepts one sample and refuses five")
