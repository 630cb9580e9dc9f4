// Python module sidfast.base._cpu: raw pointers as integers, int64 sizes, a dtype, a thread count.
// The callers (sidfast/ops/<room>/_native.py) own the tensors and check their shapes and strides.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>

#include "adam_ema/adam_ema.h"
#include "base/isa.h"
#include "group_norm/group_norm.h"
#include "random/random.h"
#include "score_losses/score_losses.h"

namespace py = pybind11;
using namespace sidfast;

namespace {

struct Kernels {
  const AdamEmaKernels* adam_ema;
  const RandomKernels* random;
  const ScoreLossKernels* score_losses;
  const GroupNormKernels* group_norm;
};

Kernels kernels_of(Isa isa) {
  switch (isa) {
#ifdef SIDFAST_X86
    case Isa::avx512:
      return {&avx512::adam_ema_kernels, &avx512::random_kernels, &avx512::score_loss_kernels,
              &avx512::group_norm_kernels};
    case Isa::avx2:
      return {&avx2::adam_ema_kernels, &avx2::random_kernels, &avx2::score_loss_kernels,
              &avx2::group_norm_kernels};
#endif
    default:
      return {&generic::adam_ema_kernels, &generic::random_kernels, &generic::score_loss_kernels,
              &generic::group_norm_kernels};
  }
}

Isa current_isa = best_isa();
Kernels kernels = kernels_of(current_isa);

py::list available_isas() {
  py::list names;
  for (int level = 0; level < kIsaCount; ++level) {
    if (isa_available(static_cast<Isa>(level))) names.append(kIsaNames[level]);
  }
  return names;
}

void use_isa(const std::string& name) {
  for (int level = 0; level < kIsaCount; ++level) {
    const Isa isa = static_cast<Isa>(level);
    if (name == kIsaNames[level] && isa_available(isa)) {
      current_isa = isa;
      kernels = kernels_of(isa);
      return;
    }
  }
  throw std::invalid_argument("this CPU and this build have no instruction set '" + name + "'");
}

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

// Runs a kernel without the interpreter lock and turns its status into an exception.
template <class Call>
void run(const Call& call) {
  Status status;
  {
    py::gil_scoped_release unlocked;
    status = call();
  }
  if (status.code == Code::bad_argument) throw std::invalid_argument(status.text);
  if (status.code == Code::unsupported) throw std::runtime_error(status.text);
}

ImageShape image_shape(int64_t samples, int64_t channels, int64_t pixels, bool in_last,
                       bool out_last) {
  require(samples >= 0 && channels >= 0 && pixels >= 0, "sizes must not be negative");
  return {samples, channels, pixels, in_last, out_last};
}

NoiseKey noise_key(int64_t seed, uintptr_t index, int64_t stream) {
  require(stream >= 0 && stream < (int64_t{1} << 32), "stream must be in [0, 2^32)");
  return {static_cast<uint64_t>(seed), at<const int64_t>(index), static_cast<uint32_t>(stream)};
}

RowShape row_shape(int64_t samples, int64_t size) {
  require(samples >= 0 && size >= 0, "sizes must not be negative");
  return {samples, size};
}

void bind_adam_ema(py::module_& m) {
  m.def("adam_ema", [](int64_t count, uintptr_t ends, uintptr_t parameters, uintptr_t gradients,
                       uintptr_t first_moments, uintptr_t second_moments, uintptr_t steps,
                       uintptr_t averages, uintptr_t copies, Dtype copy_dtype, double lr,
                       double beta1, double beta2, double eps, double weight_decay, bool decoupled,
                       double average_beta, bool clamp, uintptr_t skipped, int threads) {
    require(count >= 0, "sizes must not be negative");
    const AdamTable table{count,
                          at<const int64_t>(ends),
                          at<float* const>(parameters),
                          at<float* const>(gradients),
                          at<float* const>(first_moments),
                          at<float* const>(second_moments),
                          at<float* const>(steps),
                          at<float* const>(averages),
                          at<void* const>(copies)};
    const AdamSettings settings{lr,           beta1,     beta2, eps,       weight_decay,
                                average_beta, decoupled, clamp, copy_dtype};
    run([&] { return kernels.adam_ema->step(table, settings, at<int64_t>(skipped), threads); });
  });
}

void bind_random(py::module_& m) {
  m.def("normal", [](uintptr_t out, Dtype dtype, int64_t samples, int64_t size, int64_t seed,
                     uintptr_t index, int64_t stream, int threads) {
    const auto shape = image_shape(samples, 1, size, false, false);
    const auto key = noise_key(seed, index, stream);
    run([&] { return kernels.random->normal(at<void>(out), dtype, shape, key, threads); });
  });
  m.def("uniform", [](uintptr_t out, int64_t samples, int64_t size, int64_t seed, uintptr_t index,
                      int64_t stream, int threads) {
    const auto shape = image_shape(samples, 1, size, false, false);
    const auto key = noise_key(seed, index, stream);
    run([&] { return kernels.random->uniform(at<float>(out), shape, key, threads); });
  });
  m.def("integers", [](uintptr_t out, uint64_t high, int64_t samples, int64_t size, int64_t seed,
                       uintptr_t index, int64_t stream, int threads) {
    require(high >= 1 && high <= (uint64_t{1} << 32), "high must be in [1, 2^32]");
    const auto shape = image_shape(samples, 1, size, false, false);
    const auto key = noise_key(seed, index, stream);
    run([&] { return kernels.random->integers(at<int64_t>(out), high, shape, key, threads); });
  });
  m.def("add_noise",
        [](uintptr_t x, Dtype x_dtype, bool x_last, uintptr_t out, Dtype out_dtype, bool out_last,
           uintptr_t sigma, uintptr_t scale, int64_t samples, int64_t channels, int64_t pixels,
           int64_t seed, uintptr_t index, int64_t stream, int threads) {
          const auto shape = image_shape(samples, channels, pixels, x_last, out_last);
          const auto key = noise_key(seed, index, stream);
          run([&] {
            return kernels.random->add_noise(at<const void>(x), x_dtype, at<void>(out), out_dtype,
                                             at<const float>(sigma), at<const float>(scale), shape,
                                             key, threads);
          });
        });
  m.def("dropout",
        [](uintptr_t x, bool x_last, uintptr_t out, bool out_last, Dtype dtype, uint64_t threshold,
           float factor, int64_t samples, int64_t channels, int64_t pixels, int64_t seed,
           uintptr_t index, int64_t stream, int threads) {
          const auto shape = image_shape(samples, channels, pixels, x_last, out_last);
          const auto key = noise_key(seed, index, stream);
          run([&] {
            return kernels.random->dropout(at<const void>(x), at<void>(out), dtype, threshold,
                                           factor, shape, key, threads);
          });
        });
}

// gradients: addresses of those of images, teacher, fake and, of raw outputs, noisy; 0 for none.
SidArguments sid_arguments(uintptr_t images, uintptr_t teacher, uintptr_t fake, double alpha,
                           double floor, double scale, uintptr_t loss, uintptr_t weight,
                           const std::array<uintptr_t, 4>& gradients) {
  return {at<const void>(images), at<const void>(teacher), at<const void>(fake),
          at<float>(loss),        at<float>(weight),       at<void>(gradients[0]),
          at<void>(gradients[1]), at<void>(gradients[2]),  at<void>(gradients[3]),
          alpha,                  floor,                   scale};
}

// Addresses of noisy, sigma, c_skip, c_out and index; 0 for noisy or index.
using RawOperands = std::array<uintptr_t, 5>;

RawArguments raw_arguments(const RawOperands& raw) {
  return {at<const void>(raw[0]), at<const float>(raw[1]), at<const float>(raw[2]),
          at<const float>(raw[3])};
}

void bind_score_losses(py::module_& m) {
  m.def("sid_loss", [](uintptr_t images, uintptr_t teacher, uintptr_t fake, Dtype dtype,
                       int64_t samples, int64_t size, double alpha, double floor, double scale,
                       uintptr_t loss, uintptr_t weight, uintptr_t images_gradient,
                       uintptr_t teacher_gradient, uintptr_t fake_gradient, int threads) {
    const auto given = sid_arguments(images, teacher, fake, alpha, floor, scale, loss, weight,
                                     {images_gradient, teacher_gradient, fake_gradient, 0});
    const auto shape = row_shape(samples, size);
    run([&] { return kernels.score_losses->sid(given, dtype, shape, threads); });
  });
  m.def("sid_loss_raw",
        [](uintptr_t images, uintptr_t teacher, uintptr_t fake,
           const RawOperands& operands, Dtype dtype, Dtype raw_dtype, int64_t samples, int64_t size,
           int64_t seed, int64_t stream, double alpha, double floor, double scale, uintptr_t loss,
           uintptr_t weight,
           const std::array<uintptr_t, 4>& gradients, int threads) {
          const auto given =
              sid_arguments(images, teacher, fake, alpha, floor, scale, loss, weight, gradients);
          const auto raw = raw_arguments(operands);
          const auto key = noise_key(seed, operands[4], stream);
          const auto shape = row_shape(samples, size);
          run([&] {
            return kernels.score_losses->sid_raw(given, raw, key, dtype, raw_dtype, shape, threads);
          });
        });
  m.def("dsm_loss", [](uintptr_t images, uintptr_t denoised, uintptr_t sigma, Dtype dtype,
                       int64_t samples, int64_t size, double sigma_data, double scale,
                       uintptr_t loss, uintptr_t weight, uintptr_t gradient, int threads) {
    const DsmArguments given{at<const void>(images), at<const void>(denoised),
                             at<const float>(sigma), at<float>(loss),
                             at<float>(weight),      at<void>(gradient),
                             sigma_data,             scale};
    const auto shape = row_shape(samples, size);
    run([&] { return kernels.score_losses->dsm(given, dtype, shape, threads); });
  });
  m.def("dsm_loss_raw",
        [](uintptr_t images, uintptr_t output, const RawOperands& operands, Dtype dtype,
           Dtype raw_dtype, int64_t samples, int64_t size, int64_t seed, int64_t stream,
           double sigma_data, double scale, uintptr_t loss, uintptr_t weight, uintptr_t gradient,
           int threads) {
          const auto raw = raw_arguments(operands);
          const DsmArguments given{at<const void>(images), at<const void>(output),
                                   raw.sigma,              at<float>(loss),
                                   at<float>(weight),      at<void>(gradient),
                                   sigma_data,             scale};
          const auto key = noise_key(seed, operands[4], stream);
          const auto shape = row_shape(samples, size);
          run([&] {
            return kernels.score_losses->dsm_raw(given, raw, key, dtype, raw_dtype, shape, threads);
          });
        });
  m.def("vsd_loss", [](uintptr_t images, uintptr_t teacher, uintptr_t fake, uintptr_t scale,
                       Dtype dtype, int64_t samples, int64_t size, double floor, double eps,
                       double gradient_scale, uintptr_t loss, uintptr_t weight, uintptr_t gradient,
                       int threads) {
    const VsdArguments given{at<const void>(images), at<const void>(teacher), at<const void>(fake),
                             at<const float>(scale), at<float>(loss),         at<float>(weight),
                             at<void>(gradient),     floor,                   eps,
                             gradient_scale};
    const auto shape = row_shape(samples, size);
    run([&] { return kernels.score_losses->vsd(given, dtype, shape, threads); });
  });
}

// operands: addresses of weight, bias, offset, scale and shift, 0 for none; shape: (B, C, H, W).
GroupNormShape group_norm_shape(const py::sequence& shape, int64_t groups) {
  const auto size = [&](int i) { return shape[i].cast<int64_t>(); };
  return {size(0), size(1), size(2) * size(3), groups};
}

GroupNormArguments group_norm_arguments(uintptr_t x, const std::array<uintptr_t, 5>& operands,
                                        uintptr_t statistics, const GroupNormShape& shape,
                                        double eps, bool silu) {
  float* const means = at<float>(statistics);
  return {at<const void>(x),
          at<const float>(operands[0]),
          at<const float>(operands[1]),
          at<const float>(operands[2]),
          at<const float>(operands[3]),
          at<const float>(operands[4]),
          means,
          means + shape.samples * shape.groups,
          eps,
          silu};
}

void bind_group_norm(py::module_& m) {
  m.def("group_norm", [](uintptr_t x, const std::array<uintptr_t, 5>& operands,
                         uintptr_t statistics, uintptr_t y, Dtype dtype, const py::sequence& size,
                         int64_t groups, double eps, bool silu, int threads) {
    const auto shape = group_norm_shape(size, groups);
    const auto given = group_norm_arguments(x, operands, statistics, shape, eps, silu);
    run([&] { return kernels.group_norm->forward(given, at<void>(y), dtype, shape, threads); });
  });
  // gradients: addresses of those of x, weight, bias, offset, scale and shift.
  m.def("group_norm_backward",
        [](uintptr_t x, const std::array<uintptr_t, 5>& operands, uintptr_t statistics,
           uintptr_t y_gradient, const std::array<uintptr_t, 6>& gradients, Dtype dtype,
           const py::sequence& size, int64_t groups, double eps, bool silu, int threads) {
          const auto shape = group_norm_shape(size, groups);
          const auto given = group_norm_arguments(x, operands, statistics, shape, eps, silu);
          const GroupNormGradients made{at<const void>(y_gradient), at<void>(gradients[0]),
                                        at<float>(gradients[1]),    at<float>(gradients[2]),
                                        at<float>(gradients[3]),    at<float>(gradients[4]),
                                        at<float>(gradients[5])};
          run([&] { return kernels.group_norm->backward(given, made, dtype, shape, threads); });
        });
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  py::enum_<Dtype>(m, "Dtype")
      .value("float32", Dtype::float32)
      .value("bfloat16", Dtype::bfloat16)
      .value("float16", Dtype::float16);
  m.def("available_isas", available_isas);
  m.def("isa", [] { return kIsaNames[static_cast<int>(current_isa)]; });
  m.def("use_isa", use_isa);
  m.attr("compiler") = SIDFAST_COMPILER;
#ifdef _OPENMP
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
  bind_adam_ema(m);
  bind_random(m);
  bind_score_losses(m);
  bind_group_norm(m);
}
