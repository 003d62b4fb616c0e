# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# usage: cmake -DCONSUMER=<folder beside this file> -DWORK=<folder> -DPREFIX=<where graft is installed> -DGRAFT=<its source>
#              -DCOMPILER= -DGENERATOR= -DLAUNCHER= -DVERSION= -P run.cmake
# Configures the project from nothing, builds it and runs its program.

cmake_minimum_required(VERSION 3.24)
set(build "${WORK}/${CONSUMER}")
file(REMOVE_RECURSE "${build}")

set(arguments "-DCMAKE_PREFIX_PATH=${PREFIX}")
set(runs ON)
if(CONSUMER STREQUAL "add_subdirectory")
  set(arguments "-DGRAFT_SOURCE=${GRAFT}")
elseif(CONSUMER STREQUAL "find_package")
  list(APPEND arguments "-DEXPECTED_VERSION=${VERSION}")
elseif(CONSUMER STREQUAL "cuda")
  list(APPEND arguments "-DCMAKE_CUDA_ARCHITECTURES=90a" "-DCMAKE_CUDA_FLAGS=-Werror all-warnings -Xcompiler=-Wall,-Wextra,-Werror"
    "-DCMAKE_CUDA_HOST_COMPILER=${COMPILER}")
elseif(CONSUMER STREQUAL "readme")
  # The file is cut by position: a list of lines would lose what CMake takes for list syntax.
  file(READ "${GRAFT}/README.md" text)
  string(FIND "${text}" "\n```cpp\n" begin)
  if(begin EQUAL -1)
    message(FATAL_ERROR "README.md has no block of C++ code (```cpp)")
  endif()
  math(EXPR begin "${begin} + 8")
  string(SUBSTRING "${text}" ${begin} -1 text)
  string(FIND "${text}" "\n```" end)
  string(SUBSTRING "${text}" 0 ${end} text)
  file(WRITE "${build}/readme.cpp" "${text}\n")
  list(APPEND arguments "-DREADME_PROGRAM=${build}/readme.cpp")
endif()

set(warnings "-Wall -Wextra -Werror")
execute_process(COMMAND "${COMPILER}" -dumpversion OUTPUT_VARIABLE compiler_version OUTPUT_STRIP_TRAILING_WHITESPACE)
if(compiler_version STREQUAL "12")
  string(APPEND warnings " -Wno-restrict")  # GCC bug 105651, see cmake/graft_programs.cmake
endif()

function(run_step)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status WORKING_DIRECTORY "${build}")
  if(NOT status EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${CONSUMER}: failed with '${status}': ${command}")
  endif()
endfunction()

file(MAKE_DIRECTORY "${build}")
run_step(${CMAKE_COMMAND} -S "${CMAKE_CURRENT_LIST_DIR}/${CONSUMER}" -B "${build}" -G "${GENERATOR}"
  -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS_RELEASE=-O0" "-DCMAKE_CUDA_FLAGS_RELEASE=-O0"
  "-DCMAKE_CXX_COMPILER=${COMPILER}" "-DCMAKE_CXX_FLAGS=${warnings}"
  "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}" "-DCMAKE_CUDA_COMPILER_LAUNCHER=${LAUNCHER}" ${arguments})
run_step(${CMAKE_COMMAND} --build "${build}" --parallel)
run_step("${build}/program")
