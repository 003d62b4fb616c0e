# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# How graft's own programs, tests and benchmarks are compiled. None of this reaches a project that links graft.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release (-O3), RelWithDebInfo or MinSizeRel" FORCE)
endif()
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/bin")

find_program(GRAFT_CCACHE ccache)
mark_as_advanced(GRAFT_CCACHE)
if(GRAFT_CCACHE)
  foreach(language CXX CUDA)
    if(NOT DEFINED CMAKE_${language}_COMPILER_LAUNCHER)
      set(CMAKE_${language}_COMPILER_LAUNCHER "${GRAFT_CCACHE}")
    endif()
  endforeach()
endif()

if(graft_has_cuda)
  # Ampere and Hopper, and for what comes after them PTX, which the driver compiles at the first start.
  set(GRAFT_CUDA_ARCHITECTURES "80;90a-real" CACHE STRING "GPU architectures of graft's own CUDA programs")
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "${GRAFT_CUDA_ARCHITECTURES}")
  endif()
  if(NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER "${CUDAToolkit_NVCC_EXECUTABLE}")
  endif()
  if(NOT CMAKE_CUDA_HOST_COMPILER)
    set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}")
  endif()
  enable_language(CUDA)
  # nvcc hands its -O3 to the host compiler behind GRAFT_CUDA_HOST_FLAGS below; for the device it is the default.
  string(REPLACE "-O3" "" CMAKE_CUDA_FLAGS_RELEASE "${CMAKE_CUDA_FLAGS_RELEASE}")
endif()

# Warnings and optimisation, in one place; what is compiled with them links graft::graft or graft::cuda beside.
# Floating-point results stay those of the source: no -ffast-math. Only errno and the floating-point traps are given
# up, which nobody reads and which would keep loops from vectorising.
add_library(graft_programs INTERFACE)
set(graft_flags -Wall -Wextra -fno-math-errno -fno-trapping-math)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  list(APPEND graft_flags -Wno-restrict)  # GCC 12 warns of every "literal" + std::string (GCC bug 105651)
endif()
if(GRAFT_NATIVE)
  list(APPEND graft_flags -march=native)
endif()
if(GRAFT_SANITIZE)
  # AddressSanitizer stops where a null pointer is read; asking before each access would be a tenth of the compiling.
  set(graft_sanitizers -fsanitize=address,undefined -fno-sanitize=null,vptr -fno-sanitize-recover=all -fno-omit-frame-pointer)
  list(APPEND graft_flags ${graft_sanitizers} -D_GLIBCXX_ASSERTIONS)
  target_link_options(graft_programs INTERFACE "$<$<LINK_LANGUAGE:CXX>:${graft_sanitizers}>")
endif()
list(JOIN graft_flags "," graft_host_flags)
# What nvcc leaves to the host compiler are launches and checks, which -O3 makes slower to compile and nothing else.
set(GRAFT_CUDA_HOST_FLAGS "-O1" CACHE STRING "How the host's part of graft's own CUDA programs is compiled")
mark_as_advanced(GRAFT_CUDA_HOST_FLAGS)
target_compile_options(graft_programs INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:${graft_flags}>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${graft_host_flags},${GRAFT_CUDA_HOST_FLAGS}>")

# What reads options and files, and leaves the work to code that is compiled with -O3.
set(GRAFT_THIN_FLAGS "-O1" CACHE STRING "How the thin parts of graft's own programs are compiled, in half the time of -O3")
mark_as_advanced(GRAFT_THIN_FLAGS)

option(GRAFT_PROGRAMS_AT_ONCE "The thin programs are compiled as one file: what they include is read once" OFF)
mark_as_advanced(GRAFT_PROGRAMS_AT_ONCE)

# One program of each .cpp of the current folder, and a target that builds them all. Where there is a CUDA Toolkit, a .cu of the
# same stem becomes part of its program. Files in the folder common/ are compiled once and linked into every program.
# What has a .cu in it links graft::cuda, the rest graft::graft; GRAFT_HAS_CUDA tells a .cpp which.
# THIN_MAIN: the programs' own files only call what is in common/, and are compiled with GRAFT_THIN_FLAGS.
function(graft_add_programs collection)
  cmake_parse_arguments(PARSE_ARGV 1 arg "THIN_MAIN" "" "")
  file(GLOB sources CONFIGURE_DEPENDS *.cpp)
  file(GLOB common CONFIGURE_DEPENDS common/*.cpp)
  file(GLOB cuda_sources CONFIGURE_DEPENDS *.cu)
  file(GLOB common_cuda CONFIGURE_DEPENDS common/*.cu)
  if(NOT graft_has_cuda)
    set(cuda_sources)
    set(common_cuda)
  endif()

  set(libraries graft_programs ${arg_UNPARSED_ARGUMENTS})
  if(common_cuda)
    list(APPEND libraries graft::cuda)
  else()
    list(APPEND libraries graft::graft)
  endif()
  if(common OR common_cuda)
    add_library(${collection}_common STATIC ${common} ${common_cuda})
    target_include_directories(${collection}_common PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
    target_link_libraries(${collection}_common PRIVATE ${libraries})
    list(PREPEND libraries ${collection}_common)
  endif()

  set(thin)
  if(arg_THIN_MAIN)
    set(thin "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:${GRAFT_THIN_FLAGS}>")
  endif()
  set(together "${CMAKE_CURRENT_BINARY_DIR}/${collection}_together.cpp")
  set(mains)  # the text of that file

  add_custom_target(${collection})
  foreach(source IN LISTS sources)
    get_filename_component(name "${source}" NAME_WE)
    add_executable(${name} "${source}")
    file(STRINGS "${source}" takes_arguments REGEX "^int main\\(int argc, char\\*\\* argv\\)")
    if(arg_THIN_MAIN AND GRAFT_PROGRAMS_AT_ONCE AND takes_arguments)
      # The program is a file that calls its main among those of all.
      string(APPEND mains "#define main main_of_${name}\n#include \"${source}\"\n#undef main\n")
      file(CONFIGURE OUTPUT ${name}_main.cpp @ONLY
        CONTENT "int main_of_${name}(int, char**);\nint main(int argc, char** argv) { return main_of_${name}(argc, argv); }\n")
      set_target_properties(${name} PROPERTIES SOURCES "${CMAKE_CURRENT_BINARY_DIR}/${name}_main.cpp")
      target_link_libraries(${name} PRIVATE ${collection}_together)
    endif()
    target_include_directories(${name} PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
    target_link_libraries(${name} PRIVATE ${libraries})
    target_compile_options(${name} PRIVATE ${thin})
    set(cuda_source "${CMAKE_CURRENT_SOURCE_DIR}/${name}.cu")
    if(cuda_source IN_LIST cuda_sources)
      target_sources(${name} PRIVATE "${cuda_source}")
      target_link_libraries(${name} PRIVATE graft::cuda)
    endif()
    add_dependencies(${collection} ${name})
  endforeach()
  if(mains)
    file(CONFIGURE OUTPUT "${together}" CONTENT "${mains}" @ONLY)
    add_library(${collection}_together STATIC "${together}")
    target_compile_options(${collection}_together PRIVATE ${thin})
    target_include_directories(${collection}_together PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
    target_link_libraries(${collection}_together PRIVATE ${libraries})
  endif()
endfunction()
