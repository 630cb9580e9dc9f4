// Python module sidfast.base._cuda: device pointers as integers, int64 sizes, a dtype, then the
// stream and the device that every call ends with. Calls only launch: they allocate nothing and wait
// for nothing. The callers (sidfast/ops/<room>/_cuda.py) own the tensors.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "adam_ema/cuda.h"
#include "random/cuda.h"
#include "score_losses/cuda.h"

namespace py = pybind11;
using namespace sidfast;

namespace {

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

// Makes `device` current for a scope.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    require(cudaGetDevice(&before_) == cudaSuccess, "no CUDA device is current");
    changed_ = before_ != device;
    if (changed_) require(cudaSetDevice(device) == cudaSuccess, "no such CUDA device");
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// Launches and turns the status into an exception.
template <class Call>
void run(int device, const Call& call) {
  const OnDevice guard(device);
  const Status status = call();
  if (status.code == Code::bad_argument) throw std::invalid_argument(status.text);
  if (status.code == Code::unsupported) throw std::runtime_error(status.text);
}

ImageShape image_shape(int64_t samples, int64_t channels, int64_t pixels, bool in_last,
                       bool out_last) {
  require(samples >= 0 && channels >= 0 && pixels >= 0, "sizes must not be negative");
  return {samples, channels, pixels, in_last, out_last};
}

cuda::DeviceKey device_key(uintptr_t seed, uintptr_t index, int64_t stream) {
  require(stream >= 0 && stream < (int64_t{1} << 32), "stream must be in [0, 2^32)");
  return {at<const int64_t>(seed), at<const int64_t>(index), static_cast<uint32_t>(stream)};
}

RowShape row_shape(int64_t samples, int64_t size) {
  require(samples >= 0 && size >= 0, "sizes must not be negative");
  return {samples, size};
}

void bind_random(py::module_& m) {
  m.def("normal", [](uintptr_t out, Dtype dtype, int64_t samples, int64_t size, uintptr_t seed,
                     uintptr_t index, int64_t key_stream, uintptr_t stream, int device) {
    const auto shape = image_shape(samples, 1, size, false, false);
    const auto key = device_key(seed, index, key_stream);
    run(device, [&] { return cuda::normal(at<void>(out), dtype, shape, key, at<void>(stream)); });
  });
  m.def("uniform", [](uintptr_t out, int64_t samples, int64_t size, uintptr_t seed,
                      uintptr_t index, int64_t key_stream, uintptr_t stream, int device) {
    const auto shape = image_shape(samples, 1, size, false, false);
    const auto key = device_key(seed, index, key_stream);
    run(device, [&] { return cuda::uniform(at<float>(out), shape, key, at<void>(stream)); });
  });
  m.def("integers", [](uintptr_t out, uint64_t high, int64_t samples, int64_t size,
                       uintptr_t seed, uintptr_t index, int64_t key_stream, uintptr_t stream,
                       int device) {
    require(high >= 1 && high <= (uint64_t{1} << 32), "high must be in [1, 2^32]");
    const auto shape = image_shape(samples, 1, size, false, false);
    const auto key = device_key(seed, index, key_stream);
    run(device,
        [&] { return cuda::integers(at<int64_t>(out), high, shape, key, at<void>(stream)); });
  });
  m.def("tileable", [](uintptr_t p, int64_t channels, int64_t pixels) {
    return cuda::tileable(at<const void>(p), image_shape(1, channels, pixels, true, true));
  });
  m.def("add_noise", [](uintptr_t x, Dtype x_dtype, bool x_last, uintptr_t out, Dtype out_dtype,
                        bool out_last, uintptr_t sigma, uintptr_t scale, int64_t samples,
                        int64_t channels, int64_t pixels, uintptr_t seed, uintptr_t index,
                        int64_t key_stream, uintptr_t stream, int device) {
    const auto shape = image_shape(samples, channels, pixels, x_last, out_last);
    const auto key = device_key(seed, index, key_stream);
    run(device, [&] {
      return cuda::add_noise(at<const void>(x), x_dtype, at<void>(out), out_dtype,
                             at<const float>(sigma), at<const float>(scale), shape, key,
                             at<void>(stream));
    });
  });
  m.def("dropout", [](uintptr_t x, bool x_last, uintptr_t out, bool out_last, Dtype dtype,
                      uint64_t threshold, float factor, int64_t samples, int64_t channels,
                      int64_t pixels, uintptr_t seed, uintptr_t index, int64_t key_stream,
                      uintptr_t stream, int device) {
    const auto shape = image_shape(samples, channels, pixels, x_last, out_last);
    const auto key = device_key(seed, index, key_stream);
    run(device, [&] {
      return cuda::dropout(at<const void>(x), at<void>(out), dtype, threshold, factor, shape, key,
                           at<void>(stream));
    });
  });
}

RawArguments raw_arguments(uintptr_t noisy, uintptr_t sigma, uintptr_t c_skip, uintptr_t c_out) {
  return {at<const void>(noisy), at<const float>(sigma), at<const float>(c_skip),
          at<const float>(c_out)};
}

void bind_score_losses(py::module_& m) {
  m.def("workspace", [](Dtype dtype, int64_t samples, int64_t size, int device) {
    const OnDevice guard(device);
    return cuda::workspace(dtype, row_shape(samples, size));
  });
  m.def("workspace_raw", [](int64_t samples, int64_t size, int device) {
    const OnDevice guard(device);
    return cuda::workspace_raw(row_shape(samples, size));
  });
  m.def("sid_loss", [](uintptr_t images, uintptr_t teacher, uintptr_t fake, Dtype dtype,
                       int64_t samples, int64_t size, double alpha, double floor, double scale,
                       uintptr_t loss, uintptr_t weight, uintptr_t images_gradient,
                       uintptr_t teacher_gradient, uintptr_t fake_gradient, uintptr_t workspace,
                       uintptr_t stream, int device) {
    const SidArguments arguments{at<const void>(images),     at<const void>(teacher),
                                 at<const void>(fake),       at<float>(loss),
                                 at<float>(weight),          at<void>(images_gradient),
                                 at<void>(teacher_gradient), at<void>(fake_gradient),
                                 nullptr,                    alpha,
                                 floor,                      scale};
    const auto shape = row_shape(samples, size);
    run(device, [&] {
      return cuda::sid(arguments, dtype, shape, at<double>(workspace), at<void>(stream));
    });
  });
  m.def("sid_loss_raw", [](uintptr_t images, uintptr_t teacher, uintptr_t fake, Dtype image_dtype,
                           Dtype network_dtype, int64_t samples, int64_t size, int64_t channels,
                           uintptr_t noisy, uintptr_t sigma, uintptr_t c_skip, uintptr_t c_out,
                           uintptr_t seed, uintptr_t index, int64_t key_stream, double alpha,
                           double floor, double scale, uintptr_t loss, uintptr_t weight,
                           uintptr_t images_gradient, uintptr_t teacher_gradient,
                           uintptr_t fake_gradient, uintptr_t noisy_gradient,
                           uintptr_t workspace, uintptr_t stream, int device) {
    const SidArguments arguments{at<const void>(images),     at<const void>(teacher),
                                 at<const void>(fake),       at<float>(loss),
                                 at<float>(weight),          at<void>(images_gradient),
                                 at<void>(teacher_gradient), at<void>(fake_gradient),
                                 at<void>(noisy_gradient),   alpha,
                                 floor,                      scale};
    const auto raw = raw_arguments(noisy, sigma, c_skip, c_out);
    const auto key = device_key(seed, index, key_stream);
    const auto shape = row_shape(samples, size);
    require(channels >= 1, "channels must be positive");
    run(device, [&] {
      return cuda::sid_raw(arguments, raw, key, image_dtype, network_dtype, shape, channels,
                           at<double>(workspace), at<void>(stream));
    });
  });
  m.def("rescale", [](const std::vector<std::pair<uintptr_t, Dtype>>& gradients,
                      uintptr_t upstream, int64_t stride, double made_for, int64_t samples,
                      int64_t size, uintptr_t stream, int device) {
    require(gradients.size() <= cuda::kMostGradients, "too many gradients");
    cuda::Rescaling given{static_cast<int>(gradients.size()), {}, {}, at<const float>(upstream),
                          stride, static_cast<float>(made_for)};
    for (size_t i = 0; i < gradients.size(); ++i) {
      given.gradients[i] = at<void>(gradients[i].first);
      given.dtypes[i] = gradients[i].second;
    }
    const auto shape = row_shape(samples, size);
    run(device, [&] { return cuda::rescale(given, shape, at<void>(stream)); });
  });
  m.def("vsd_loss", [](uintptr_t images, uintptr_t teacher, uintptr_t fake, uintptr_t own_scale,
                       Dtype dtype, int64_t samples, int64_t size, double floor, double eps,
                       double scale, uintptr_t loss, uintptr_t weight, uintptr_t gradient,
                       uintptr_t workspace, uintptr_t stream, int device) {
    const VsdArguments arguments{at<const void>(images), at<const void>(teacher),
                                 at<const void>(fake),   at<const float>(own_scale),
                                 at<float>(loss),        at<float>(weight),
                                 at<void>(gradient),     floor,
                                 eps,                    scale};
    const auto shape = row_shape(samples, size);
    run(device, [&] {
      return cuda::vsd(arguments, dtype, shape, at<double>(workspace), at<void>(stream));
    });
  });
  m.def("dsm_loss", [](uintptr_t images, uintptr_t denoised, uintptr_t sigma, Dtype dtype,
                       int64_t samples, int64_t size, double sigma_data, double scale,
                       uintptr_t loss, uintptr_t weight, uintptr_t gradient, uintptr_t workspace,
                       uintptr_t stream, int device) {
    const DsmArguments arguments{at<const void>(images), at<const void>(denoised),
                                 at<const float>(sigma), at<float>(loss),
                                 at<float>(weight),      at<void>(gradient),
                                 sigma_data,             scale};
    const auto shape = row_shape(samples, size);
    run(device, [&] {
      return cuda::dsm(arguments, dtype, shape, at<double>(workspace), at<void>(stream));
    });
  });
  m.def("dsm_loss_raw", [](uintptr_t images, uintptr_t network, Dtype image_dtype,
                           Dtype network_dtype, int64_t samples, int64_t size, int64_t channels,
                           uintptr_t noisy, uintptr_t sigma, uintptr_t c_skip, uintptr_t c_out,
                           uintptr_t seed, uintptr_t index, int64_t key_stream,
                           double sigma_data, double scale, uintptr_t loss, uintptr_t weight,
                           uintptr_t gradient, uintptr_t workspace, uintptr_t stream,
                           int device) {
    const DsmArguments arguments{at<const void>(images), at<const void>(network),
                                 at<const float>(sigma), at<float>(loss),
                                 at<float>(weight),      at<void>(gradient),
                                 sigma_data,             scale};
    const auto raw = raw_arguments(noisy, sigma, c_skip, c_out);
    const auto key = device_key(seed, index, key_stream);
    const auto shape = row_shape(samples, size);
    require(channels >= 1, "channels must be positive");
    run(device, [&] {
      return cuda::dsm_raw(arguments, raw, key, image_dtype, network_dtype, shape, channels,
                           at<double>(workspace), at<void>(stream));
    });
  });
}

// `table` has a row of addresses or sizes for each column: see sidfast/ops/adam_ema/_tables.py.
cuda::AdamColumns adam_columns(uintptr_t table, uintptr_t gradients, int64_t count) {
  require(count >= 0, "sizes must not be negative");
  const auto row = [&](int i) { return table + static_cast<uintptr_t>(i * count) * sizeof(int64_t); };
  return {count,
          at<const int64_t>(row(0)),
          at<float* const>(row(1)),
          at<float* const>(row(2)),
          at<float* const>(row(3)),
          at<float* const>(row(4)),
          at<float* const>(row(5)),
          at<void* const>(row(6)),
          at<float* const>(gradients)};
}

void bind_adam_ema(py::module_& m) {
  m.attr("adam_piece") = cuda::kAdamPiece;
  m.def("adam_workspace", cuda::adam_workspace);
  m.def("adam_ema", [](uintptr_t table, uintptr_t gradients, int64_t count, uintptr_t pieces,
                       int64_t piece_count, Dtype copy_dtype, double lr, uintptr_t lr_at,
                       bool lr_wide, double beta1, double beta2, double eps, double weight_decay,
                       bool decoupled, double average_beta, uintptr_t average_beta_at,
                       bool average_beta_wide, bool clamp, uintptr_t skipped, uintptr_t workspace,
                       uintptr_t stream, int device) {
    require(piece_count >= 0, "sizes must not be negative");
    const auto columns = adam_columns(table, gradients, count);
    const auto* owners = at<const int32_t>(pieces);
    const AdamSettings settings{lr,           beta1,     beta2, eps,       weight_decay,
                                average_beta, decoupled, clamp, copy_dtype};
    run(device, [&] {
      return cuda::adam_ema(columns, {piece_count, owners, owners + piece_count}, settings,
                            {at<const void>(lr_at), lr_wide},
                            {at<const void>(average_beta_at), average_beta_wide},
                            at<int64_t>(skipped), at<float>(workspace), at<void>(stream));
    });
  });
}

// (runtime, driver) as 1000 * major + 10 * minor: the CUDA version linked in, and the newest that the
// driver serves, which is 0 without a driver.
py::tuple versions() {
  int runtime = 0, driver = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  return py::make_tuple(runtime, driver);
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  py::enum_<Dtype>(m, "Dtype", py::module_local())
      .value("float32", Dtype::float32)
      .value("bfloat16", Dtype::bfloat16)
      .value("float16", Dtype::float16);
  m.attr("architectures") = SIDFAST_CUDA_ARCHITECTURES;
  m.def("versions", versions);
  bind_adam_ema(m);
  bind_random(m);
  bind_score_losses(m);
}
