# Generates one translation unit for each line of kernels/attention/instances.def. So they compile in parallel, and a
# changed line recompiles one kernel. Sets SAMRT_ATTENTION_INSTANCES to the files.

set(samrt_instances ${PROJECT_SOURCE_DIR}/kernels/attention/instances.def)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${samrt_instances})
file(STRINGS ${samrt_instances} samrt_lines REGEX "^INSTANCE")
set(SAMRT_ATTENTION_INSTANCES "")
foreach(line IN LISTS samrt_lines)
  if(NOT line MATCHES "^INSTANCE\\(([a-z0-9_]+), ([0-9]+), ([0-9]+), (true|false)\\)$")
    message(FATAL_ERROR "samrt: cannot read \"${line}\" in ${samrt_instances}")
  endif()
  set(FORMAT ${CMAKE_MATCH_1})
  set(HEAD_DIM ${CMAKE_MATCH_2})
  set(TILE ${CMAKE_MATCH_3})
  set(REL_POS ${CMAKE_MATCH_4})
  set(file ${PROJECT_BINARY_DIR}/attention/attention${FORMAT}_${HEAD_DIM}_${TILE}_${REL_POS}.cu)
  configure_file(${PROJECT_SOURCE_DIR}/kernels/attention/instance.cu.in ${file} @ONLY)
  list(APPEND SAMRT_ATTENTION_INSTANCES ${file})
endforeach()
