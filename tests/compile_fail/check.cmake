# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# usage: cmake -DSOURCE=<file> -DCOMPILERS=<path>[,<path>...] -DFLAGS=<flag>[,<flag>...] -P check.cmake
# With each compiler: with GRAFT_MUST_FAIL defined SOURCE does not compile, and among the messages is the one of its line
# "// expect: <regex>". With the last one: it compiles as it is, so that it fails for the reason given and no other.

cmake_minimum_required(VERSION 3.24)
get_filename_component(name "${SOURCE}" NAME)

file(STRINGS "${SOURCE}" expectations REGEX "^// expect: .")
list(LENGTH expectations count)
if(NOT count EQUAL 1)
  message(FATAL_ERROR "${name}: expected one line '// expect: <regex>', got ${count}")
endif()
string(REGEX REPLACE "^// expect: " "" expected "${expectations}")
file(STRINGS "${SOURCE}" switches REGEX "^#[ \t]*if.*GRAFT_MUST_FAIL")
if(NOT switches)
  message(FATAL_ERROR "${name}: has no line '#ifdef GRAFT_MUST_FAIL'")
endif()

string(REPLACE "," ";" COMPILERS "${COMPILERS}")
string(REPLACE "," ";" FLAGS "${FLAGS}")
list(REMOVE_DUPLICATES COMPILERS)
list(FILTER COMPILERS EXCLUDE REGEX "NOTFOUND$")
if(NOT COMPILERS)
  message(FATAL_ERROR "${name}: no compiler was given")
endif()
foreach(compiler IN LISTS COMPILERS)
  execute_process(COMMAND ${compiler} ${FLAGS} -DGRAFT_MUST_FAIL "${SOURCE}"
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(status EQUAL 0)
    message(FATAL_ERROR "${name}: compiles with GRAFT_MUST_FAIL defined with ${compiler}, expected: ${expected}")
  endif()
  if(NOT output MATCHES "${expected}")
    message(FATAL_ERROR "${name}: expected the message '${expected}' of ${compiler}, got:\n${output}")
  endif()
endforeach()
list(LENGTH COMPILERS count)
list(GET COMPILERS -1 compiler)
execute_process(COMMAND ${compiler} ${FLAGS} "${SOURCE}"
  RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${name}: the control does not compile with ${compiler}:\n${output}")
endif()
message(STATUS "${name}: fails as expected with ${count} compilers")
