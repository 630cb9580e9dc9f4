// What networks put out: denoised images, or raw outputs that are made denoised images on the way.
#pragma once

#include "base/numbers.cuh"
#include "score_losses/rows.cuh"

namespace sidfast::cuda {

// Networks put out denoised images.
template <class T>
struct Denoised {
  using Image = T;
  using Network = T;
  static constexpr bool kRaw = false;
  static constexpr int kRun = kAccess<T>;

  // Of one sample.
  struct Sample {};

  const T* images;

  SIDFAST_INLINE Sample enter(int64_t) const { return {}; }

  // output - images.
  template <class Run>
  SIDFAST_INLINE void error(const Run& run, const Sample&, const float (&output)[kRun],
                            float* e) const {
    float x[kRun];
    run.template read<kRun>(images, x);
#pragma unroll
    for (int i = 0; i < kRun; ++i) e[i] = output[i] - x[i];
  }

  // What the difference of two outputs is multiplied with.
  static SIDFAST_INLINE float difference(const Sample&) { return 1.0f; }

  SIDFAST_INLINE Factors factors(int64_t, double factor, bool good) const {
    const float f = static_cast<float>(factor);
    return {-f, f, 0.0f, good};
  }

  bool aligned(int64_t size) const { return rows_aligned(images, size); }
};

// Elements that a thread takes of raw outputs at a time, whatever their type: half as many would
// mean twice as many threads, without the registers that noise is made in.
inline constexpr int kRawRun = 8;

// Networks put out what c_skip x_t + c_out output makes an image; x_t is given, or, where a key is,
// made again. (An empty tensor of noisy images has no address either.)
template <class X, class Y>
struct Raw {
  using Image = X;
  using Network = Y;
  static constexpr bool kRaw = true;
  static constexpr int kRun = kRawRun;

  struct Sample {
    float c_skip, c_out, sigma;
    SampleKey key;
  };

  const X *images, *noisy;
  const float *sigma, *c_skip, *c_out;
  DeviceKey key;
  int64_t channels, pixels;  // of a sample stored as HW,C; one channel if it is stored as C,HW

  SIDFAST_INLINE Sample enter(int64_t sample) const {
    Sample own{c_skip[sample], c_out[sample], 0.0f, {}};
    if (key.seed) {
      own.sigma = sigma[sample];
      own.key = sample_key(key, sample);
    }
    return own;
  }

  template <class Run>
  SIDFAST_INLINE void error(const Run& run, const Sample& own, const float (&output)[kRun],
                            float* e) const {
    float x[kRun], x_t[kRun];
    run.template read<kRun>(images, x);
    if (key.seed) {
      add_noise(own, run.offset, x, x_t);
    } else {
      run.template read<kRun>(noisy, x_t);
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      // c_skip x_t and x nearly cancel at little noise: each product rounds once, after its sum.
      const float value = fmaf(own.c_out, output[i], fmaf(own.c_skip, x_t[i], -x[i]));
      e[i] = run.has(i) ? value : 0.0f;
    }
  }

  SIDFAST_INLINE void add_noise(const Sample& own, int64_t offset, const float (&x)[kRun],
                                float (&x_t)[kRun]) const {
    F noise[kRun];
    if (channels == 1) {
      numbers<Normals, kRun>(own.key, offset, noise);
    } else {
      // One counter after the other: side by side they would need too many registers.
      int64_t pixel = offset / channels, channel = offset - pixel * channels;
#pragma unroll 1
      for (int i = 0; i < kRun; ++i) {
        const F made = normal_of(own.key, channel * pixels + pixel);
#pragma unroll
        for (int j = 0; j < kRun; ++j) {
          if (i == j) noise[j] = made;
        }
        if (++channel == channels) {
          channel = 0;
          ++pixel;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) x_t[i] = fmaf(own.sigma, noise[i].v, x[i]);
  }

  static SIDFAST_INLINE float difference(const Sample& own) { return own.c_out; }

  SIDFAST_INLINE Factors factors(int64_t sample, double factor, bool good) const {
    const double skip = c_skip[sample], out = c_out[sample];
    // Where x_t is made of the images, it hands its gradient on to them.
    return {static_cast<float>(factor * (key.seed ? skip - 1.0 : -1.0)),
            static_cast<float>(factor * out), static_cast<float>(factor * skip), good};
  }

  bool aligned(int64_t size) const {
    return rows_aligned(images, size) && rows_aligned(noisy, size);
  }
};

}  // namespace sidfast::cuda
