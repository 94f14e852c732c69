# weft_fetch(<name>): sets <name>_SOURCE_DIR to a folder with the sources pinned in pins.cmake, from the first of
#   1. -DWEFT_<NAME>_DIR=<folder>, taken as it is;
#   2. what an earlier build left in ${WEFT_CACHE_DIR}/sources, or an archive put into ${WEFT_CACHE_DIR}/downloads by hand;
#   3. upstream: the pinned commit over Git;
#   4. the pinned source package from the Debian mirror of this machine.
function(weft_git_fetch url commit folder out)
  set(${out} FALSE PARENT_SCOPE)
  get_property(offline GLOBAL PROPERTY WEFT_UPSTREAM_UNREACHABLE)
  find_program(WEFT_GIT git)
  if(offline OR NOT WEFT_GIT)
    return()
  endif()
  file(REMOVE_RECURSE "${folder}.part")
  set(ENV{GIT_TERMINAL_PROMPT} 0)
  foreach(step "init;--quiet;${folder}.part"
               "-C;${folder}.part;-c;http.lowSpeedLimit=1000;-c;http.lowSpeedTime=10;fetch;--quiet;--depth;1;${url};${commit}"
               "-C;${folder}.part;-c;advice.detachedHead=false;checkout;--quiet;FETCH_HEAD")
    execute_process(COMMAND ${WEFT_GIT} ${step} RESULT_VARIABLE status OUTPUT_QUIET ERROR_QUIET TIMEOUT 120)
    if(NOT status EQUAL 0)
      file(REMOVE_RECURSE "${folder}.part")
      set_property(GLOBAL PROPERTY WEFT_UPSTREAM_UNREACHABLE TRUE) # one host serves them all: do not wait for it again
      return()
    endif()
  endforeach()
  file(RENAME "${folder}.part" "${folder}")
  set(${out} TRUE PARENT_SCOPE)
endfunction()

function(weft_debian_mirror out)
  set(mirror "")
  if(EXISTS /usr/lib/apt/apt-helper)
    execute_process(COMMAND apt-get indextargets --format "$(REPO_URI)" "Created-By: Packages"
                    OUTPUT_VARIABLE uris OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    string(REPLACE "\n" ";" uris "${uris}")
    list(FILTER uris EXCLUDE REGEX "security")
    if(uris)
      list(GET uris 0 mirror)
    endif()
  endif()
  set(${out} "${mirror}" PARENT_SCOPE)
endfunction()

function(weft_archive_is_good file hash out)
  set(${out} FALSE PARENT_SCOPE)
  if(EXISTS "${file}")
    file(SHA256 "${file}" actual)
    if(actual STREQUAL hash)
      set(${out} TRUE PARENT_SCOPE)
    endif()
  endif()
endfunction()

function(weft_fetch name)
  string(TOUPPER ${name} upper)
  set(WEFT_${upper}_DIR "" CACHE PATH "Sources of ${name} to build instead of the pinned ones")
  if(WEFT_${upper}_DIR)
    message(STATUS "${name}: ${WEFT_${upper}_DIR} (given)")
    set(${name}_SOURCE_DIR "${WEFT_${upper}_DIR}" PARENT_SCOPE)
    return()
  endif()
  string(SUBSTRING ${pin_${name}_COMMIT} 0 12 short)
  set(folder "${WEFT_CACHE_DIR}/sources/${name}-${short}")
  cmake_path(GET pin_${name}_DEBIAN FILENAME file)
  set(archive "${WEFT_CACHE_DIR}/downloads/${file}")
  if(NOT EXISTS "${folder}")
    weft_archive_is_good("${archive}" ${pin_${name}_SHA256} found)
    if(NOT found)
      message(STATUS "${name}: fetching ${pin_${name}_GIT} at ${short}")
      weft_git_fetch(${pin_${name}_GIT} ${pin_${name}_COMMIT} "${folder}" fetched)
      weft_debian_mirror(mirror)
      if(NOT fetched AND mirror)
        message(STATUS "${name}: upstream not reachable, fetching ${file} from ${mirror}")
        file(MAKE_DIRECTORY "${WEFT_CACHE_DIR}/downloads")
        execute_process(COMMAND /usr/lib/apt/apt-helper download-file "${mirror}${pin_${name}_DEBIAN}" "${archive}"
                                "SHA256:${pin_${name}_SHA256}" OUTPUT_QUIET ERROR_QUIET)
        weft_archive_is_good("${archive}" ${pin_${name}_SHA256} found)
      endif()
    endif()
    if(found)
      file(REMOVE_RECURSE "${folder}.part")
      file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${folder}.part")
      file(RENAME "${folder}.part" "${folder}") # a folder that exists is complete
    endif()
  endif()
  if(NOT EXISTS "${folder}")
    message(FATAL_ERROR
      "weft needs the sources of ${name} and cannot get them. Give them in one of three ways:\n"
      "  1. -DWEFT_${upper}_DIR=<folder with the sources of ${name}>\n"
      "  2. put ${file} (SHA-256 ${pin_${name}_SHA256}) into ${WEFT_CACHE_DIR}/downloads\n"
      "  3. a network on which ${pin_${name}_GIT} or a Debian mirror (apt) can be reached")
  endif()
  file(GLOB top LIST_DIRECTORIES true "${folder}/*")
  list(LENGTH top count)
  if(count EQUAL 1) # some archives have a top folder, some have none
    set(folder "${top}")
  endif()
  set(${name}_SOURCE_DIR "${folder}" PARENT_SCOPE)
endfunction()
