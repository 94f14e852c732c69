# cmake --install: headers, static libraries (ours and those they need) and find_package(weft) -> weft::weft.
include(GNUInstallDirs)
set(libraries weft_runtime weft_passes weft_importers weft_ops weft_graph)
install(TARGETS ${libraries} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/weft)
install(DIRECTORY ${WEFT_THIRD_PARTY}/lib/ DESTINATION ${CMAKE_INSTALL_LIBDIR}/weft FILES_MATCHING PATTERN "*.a")
install(DIRECTORY ${WEFT_THIRD_PARTY}/include/fmt DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/weft)
foreach(folder graph ops passes importers runtime)
  install(DIRECTORY ${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/weft FILES_MATCHING PATTERN "*.h" PATTERN "kernels" EXCLUDE)
endforeach()
include(CMakePackageConfigHelpers)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/weftConfig.cmake.in ${CMAKE_BINARY_DIR}/weftConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/weft PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/weftConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/weftConfig.cmake ${CMAKE_BINARY_DIR}/weftConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/weft)
if(TARGET weft)
  install(TARGETS weft RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
