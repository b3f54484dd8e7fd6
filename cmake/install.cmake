# What `make install` puts where: the component `cadre`, below CMAKE_INSTALL_PREFIX (GNUInstallDirs).
#
#   cmake --install build/release --component cadre --prefix /usr/local --strip

include(GNUInstallDirs)
find_package(Python3 COMPONENTS Interpreter REQUIRED)

# Manual pages and completions are what the programs say with --help, so they are made by the build that makes these.
set(CADRE_MANUALS ${CMAKE_BINARY_DIR}/manuals)
set(manuals_source ${PROJECT_SOURCE_DIR}/tools/manuals)
add_custom_command(OUTPUT ${CADRE_MANUALS}.stamp
  COMMAND ${Python3_EXECUTABLE} ${manuals_source}/write_manuals.py ${CADRE_MANUALS}
    $<TARGET_FILE:cadre> $<TARGET_FILE:cadre-server>
  COMMAND ${CMAKE_COMMAND} -E touch ${CADRE_MANUALS}.stamp
  DEPENDS cadre cadre-server ${manuals_source}/completions.py ${manuals_source}/help_text.py
    ${manuals_source}/man_pages.py ${manuals_source}/write_manuals.py
  COMMENT "Manual pages and completions" VERBATIM)
add_custom_target(manuals ALL DEPENDS ${CADRE_MANUALS}.stamp)

install(TARGETS cadre cadre-server RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT cadre)
install(DIRECTORY ${CADRE_MANUALS}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR} COMPONENT cadre)
install(DIRECTORY ${CADRE_MANUALS}/bash-completion ${CADRE_MANUALS}/zsh ${CADRE_MANUALS}/fish
  DESTINATION ${CMAKE_INSTALL_DATADIR} COMPONENT cadre)
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT cadre)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT cadre)
# For clients in languages of their own.
install(DIRECTORY proto/cadre proto/google proto/grpc DESTINATION ${CMAKE_INSTALL_DATADIR}/cadre/proto COMPONENT cadre
  FILES_MATCHING PATTERN "*.proto")
install(FILES proto/service_config.json DESTINATION ${CMAKE_INSTALL_DATADIR}/cadre/proto COMPONENT cadre)

# The unit names the programs where they are installed, which only the installation knows.
set(units lib/systemd/system)
install(CODE "
  set(CADRE_BINDIR \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}\")
  configure_file(\"${PROJECT_SOURCE_DIR}/deploy/systemd/cadre.service.in\" \"${CMAKE_BINARY_DIR}/cadre.service\" @ONLY)
" COMPONENT cadre)
install(FILES ${CMAKE_BINARY_DIR}/cadre.service DESTINATION ${units} COMPONENT cadre)
install(FILES deploy/systemd/server.env deploy/systemd/gpu.conf DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT cadre)
