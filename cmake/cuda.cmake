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

# Machine code for these, e.g. "80;90", and PTX of the last for devices to come.
set(SIDFAST_CUDA_ARCHS "" CACHE STRING "Compute capabilities; empty: what nvcc knows of 80, 90, 100")
set(architectures ${SIDFAST_CUDA_ARCHS})
if(NOT architectures)
  set(architectures 80 90)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    list(APPEND architectures 100)
  endif()
endif()
list(SORT architectures COMPARE NATURAL)
list(TRANSFORM architectures PREPEND "sm_" OUTPUT_VARIABLE names)
list(TRANSFORM architectures APPEND "-real")
list(GET architectures -1 newest)
string(REPLACE "-real" "-virtual" newest ${newest})
list(APPEND architectures ${newest})
string(REPLACE "-virtual" "" newest ${newest})
list(APPEND names "compute_${newest}")
list(JOIN names " " names)

pybind11_add_module(_cuda MODULE NO_EXTRAS
  csrc/cuda_bindings.cpp csrc/random/cuda.cu csrc/score_losses/cuda.cu)
target_include_directories(_cuda PRIVATE csrc)
target_link_libraries(_cuda PRIVATE CUDA::cudart_static)
set_target_properties(_cuda PROPERTIES
  CUDA_ARCHITECTURES "${architectures}" CUDA_RUNTIME_LIBRARY Static)
target_compile_definitions(_cuda PRIVATE "SIDFAST_CUDA_ARCHITECTURES=\"${names}\"")
# Equal bits on every device: see csrc/base/lane.cuh.
target_compile_options(_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CXX>:-O3 -Wall -Wextra>
  $<$<COMPILE_LANGUAGE:CUDA>:-O3 --fmad=false -lineinfo>)
pybind11_strip(_cuda)
