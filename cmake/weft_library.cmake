# weft_library(<folder> [SMALL] LINKS ... PRIVATE_LINKS ...): the target weft::<folder> of the sources below the current folder.
find_program(WEFT_CCACHE ccache)
if(WEFT_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${WEFT_CCACHE})
  if(WEFT_PRECOMPILED_HEADERS) # which ccache asks to be told of
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${WEFT_CCACHE})
  endif()
endif()

add_library(weft_options INTERFACE)
target_compile_options(weft_options INTERFACE
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Werror -ffunction-sections -fdata-sections
  -ffp-contract=off) # so that a value does not depend on which kernel the compiler fused a multiply-add in
target_link_options(weft_options INTERFACE -Wl,--gc-sections)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(weft_options INTERFACE -Wno-maybe-uninitialized) # g++ 12 sees it in std::optional and std::variant
endif()
if(WEFT_LINKER)
  target_link_options(weft_options INTERFACE -fuse-ld=${WEFT_LINKER})
endif()
if(WEFT_SANITIZE)
  target_compile_options(weft_options INTERFACE -fsanitize=${WEFT_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(weft_options INTERFACE -fsanitize=${WEFT_SANITIZE})
  if(WEFT_SANITIZE MATCHES "address.*undefined") # what the address sanitizer sees by itself takes half of the compile time
    target_compile_options(weft_options INTERFACE -fno-sanitize=null,object-size,vptr)
  endif()
endif()

# weft_precompile(<target> <header>...): the headers that most sources include, and those given.
function(weft_precompile target)
  if(WEFT_PRECOMPILED_HEADERS)
    target_precompile_headers(${target} PRIVATE <algorithm> <array> <cmath> <cstdint> <functional> <map> <memory> <numeric> <optional>
                              <set> <span> <string> <variant> <vector> ${ARGN})
    target_compile_options(${target} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
  endif()
endfunction()

function(weft_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "SMALL" "" "LINKS;PRIVATE_LINKS")
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  add_library(weft_${name} STATIC ${sources})
  add_library(weft::${name} ALIAS weft_${name})
  target_include_directories(weft_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
  target_link_libraries(weft_${name} PUBLIC ${arg_LINKS} PRIVATE ${arg_PRIVATE_LINKS} $<BUILD_INTERFACE:weft_options>)
  weft_precompile(weft_${name} <fmt/format.h>)
  if(arg_SMALL) # what runs once a model is optimized for size
    target_compile_options(weft_${name} PRIVATE $<$<CONFIG:Release>:-Os>)
  endif()
endfunction()
