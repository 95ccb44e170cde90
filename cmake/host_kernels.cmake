# The kernels' source compiled for the CPU, with tests/kernels/host in place of the GPU:
#
#   libsamrt_kernels_host.so     with AddressSanitizer; a process that loads it needs libasan in LD_PRELOAD
#   libsamrt_kernels_races.so    with the race detector of tests/kernels/host/races.cpp, which needs no library
#   check_shim, check_shim_races checks of tests/kernels/host itself, with the same two tools
#   libsamrt_plugin_host.so      the plugin; drive_plugin calls it like TensorRT
#   drive_self_test              the kernels' self test, with faults injected between it and the kernels
#
# All but the first are built only if named as a target.
set(SAMRT_COMPILED_ARCHITECTURES host)
configure_file(kernels/common/architectures.cpp.in common/architectures.cpp @ONLY)
set_source_files_properties(${SAMRT_KERNEL_SOURCES} PROPERTIES LANGUAGE CXX)
file(GLOB samrt_shim_sources CONFIGURE_DEPENDS tests/kernels/host/*.cpp)
file(GLOB samrt_shim_checks CONFIGURE_DEPENDS tests/kernels/check_shim*.cpp)

find_package(Threads REQUIRED)
# The build type's own -O3 would take twice as long to compile.
string(TOUPPER ${CMAKE_BUILD_TYPE} samrt_build_type)
set(CMAKE_CXX_FLAGS_${samrt_build_type} "")
# Only nvcc knows `#pragma unroll`.
add_compile_options(-Wall -Wextra -Wno-unknown-pragmas -g1 -fno-omit-frame-pointer)
add_compile_definitions(SAMRT_ON_HOST)
include_directories(kernels tests/kernels/host)
link_libraries(Threads::Threads ${CMAKE_DL_LIBS})

# ${name}_objects: the kernels, compiled with the given sanitizer, and tests/kernels/host, compiled without it to save time.
function(samrt_host_objects name definition)
  add_library(${name}_shim OBJECT EXCLUDE_FROM_ALL ${samrt_shim_sources})
  target_compile_definitions(${name}_shim PRIVATE ${definition})
  target_compile_options(${name}_shim PRIVATE -O3)
  add_library(${name}_objects OBJECT EXCLUDE_FROM_ALL ${SAMRT_KERNEL_SOURCES})
  target_compile_definitions(${name}_objects PUBLIC ${definition})
  target_compile_options(${name}_objects PUBLIC -O1 ${ARGN})
  target_sources(${name}_objects INTERFACE $<TARGET_OBJECTS:${name}_shim>)
endfunction()

set(samrt_sanitizers -fsanitize=address,undefined -fno-sanitize-recover=undefined)
samrt_host_objects(samrt_host SAMRT_HOST_ASAN ${samrt_sanitizers})
target_link_options(samrt_host_objects PUBLIC ${samrt_sanitizers})
# Compiled with -fsanitize=thread and linked without it: the inserted calls go to races.cpp, not to the sanitizer's
# library.
samrt_host_objects(samrt_races SAMRT_HOST_RACES -fsanitize=thread)

add_library(samrt_kernels_host SHARED)
target_link_libraries(samrt_kernels_host PRIVATE samrt_host_objects)
add_library(samrt_kernels_races SHARED EXCLUDE_FROM_ALL)
target_link_libraries(samrt_kernels_races PRIVATE samrt_races_objects)

add_executable(check_shim EXCLUDE_FROM_ALL ${samrt_shim_checks} $<TARGET_OBJECTS:samrt_host_shim>)
target_compile_definitions(check_shim PRIVATE SAMRT_HOST_ASAN)
target_compile_options(check_shim PRIVATE -O1 ${samrt_sanitizers})
target_link_options(check_shim PRIVATE ${samrt_sanitizers})
add_executable(check_shim_races EXCLUDE_FROM_ALL ${samrt_shim_checks} $<TARGET_OBJECTS:samrt_races_shim>)
target_compile_definitions(check_shim_races PRIVATE SAMRT_HOST_RACES)
target_compile_options(check_shim_races PRIVATE -O1 -fsanitize=thread)

# libsamrt_plugin_host.so exports the same functions as the real plugin. drive_plugin calls it like TensorRT.
file(GLOB samrt_plugin_sources CONFIGURE_DEPENDS kernels/plugin/*.cpp)
file(GLOB samrt_driver_sources CONFIGURE_DEPENDS tests/kernels/plugin/*.cpp)
add_library(samrt_plugin_host SHARED EXCLUDE_FROM_ALL ${samrt_plugin_sources})
target_link_libraries(samrt_plugin_host PRIVATE samrt_host_objects)
target_link_options(samrt_plugin_host PRIVATE -Wl,-Bsymbolic)
add_executable(drive_plugin EXCLUDE_FROM_ALL ${samrt_driver_sources})
target_compile_options(drive_plugin PRIVATE -O1 ${samrt_sanitizers})
target_link_options(drive_plugin PRIVATE ${samrt_sanitizers})
target_link_libraries(drive_plugin PRIVATE samrt_plugin_host)

# The kernels' self test, with faults injected between it and the kernels.
add_executable(drive_self_test EXCLUDE_FROM_ALL tests/kernels/plugin/self_test/drive_self_test.cpp)
target_link_libraries(drive_self_test PRIVATE samrt_host_objects)
target_link_options(drive_self_test PRIVATE -Wl,--wrap=samrt_attention)
