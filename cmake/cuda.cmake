# The target _cuda: it links CUDA's runtime statically and needs neither torch nor a driver.
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "nvcc was not found; put it on PATH or name it in CUDACXX")
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # enable_language() asks for one; set below
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)

# Machine code for these, e.g. "80;90", or for the devices of this machine; and PTX of the newest for
# devices to come.
set(SIDFAST_CUDA_ARCHS "" CACHE STRING "Compute capabilities, or native; empty: all that are known")
set(numbers ${SIDFAST_CUDA_ARCHS})
if(numbers STREQUAL "native")
  string(REPLACE "-real" "" numbers "${CMAKE_CUDA_ARCHITECTURES_NATIVE}")
  if(NOT numbers MATCHES "^[0-9]")
    message(FATAL_ERROR "SIDFAST_CUDA_ARCHS=native, but no CUDA device was found")
  endif()
elseif(NOT numbers)
  set(numbers 80 90)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    list(APPEND numbers 100)
  endif()
endif()
list(SORT numbers COMPARE NATURAL)
list(GET numbers -1 newest)
list(TRANSFORM numbers APPEND "-real" OUTPUT_VARIABLE architectures)
list(APPEND architectures ${newest}-virtual)
list(TRANSFORM numbers PREPEND "sm_" OUTPUT_VARIABLE names)
list(APPEND names compute_${newest})
list(JOIN names " " names)

pybind11_add_module(_cuda MODULE NO_EXTRAS
  csrc/cuda_bindings.cpp csrc/adam_ema/cuda.cu csrc/random/cuda.cu csrc/score_losses/cuda.cu)
target_include_directories(_cuda PRIVATE csrc)
target_link_libraries(_cuda PRIVATE CUDA::cudart_static)
set_target_properties(_cuda PROPERTIES
  CUDA_ARCHITECTURES "${architectures}" CUDA_RUNTIME_LIBRARY Static)
target_compile_definitions(_cuda PRIVATE "SIDFAST_CUDA_ARCHITECTURES=\"${names}\"")
# Equal bits on every device: see csrc/base/lane.cuh.
target_compile_options(_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CXX>:-O3 -Wall -Wextra>
  $<$<COMPILE_LANGUAGE:CUDA>:-O3 --fmad=false>)
pybind11_strip(_cuda)
