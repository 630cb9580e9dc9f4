// Where e = T - x and d = T - F of a sample come from: denoised images, or raw network outputs.
//
// A source has runs, which read [start, start + count) of a sample; run() makes what a run needs
// beyond memory, rerun() finds it again where the sample `holds` it. And it knows what gradients
// with respect to T and F are multiplied with to become those of its own tensors.
#pragma once

#include "base/noise.h"
#include "score_losses/rows.h"

namespace sidfast::SIDFAST_ISA {

// Of the gradients of the images, of both network outputs and of the noisy images.
struct Factors {
  float images, outputs, noisy;
};

template <class T>
struct Denoised {
  using Images = T;
  using Outputs = T;
  struct Scratch {};

  const T *images, *teacher, *fake;
  int64_t size;

  struct Run {
    const T *x, *teacher, *fake;

    template <class Read>
    SIDFAST_INLINE F error(const Read& read, int64_t i) const {
      return read(teacher + i) - read(x + i);
    }
    template <class Read>
    SIDFAST_INLINE F difference(const Read& read, int64_t i) const {
      return read(teacher + i) - read(fake + i);
    }
    SIDFAST_INLINE void prefetch(int64_t i) const {
      prefetch_group(x + i);
      prefetch_group(teacher + i);
      prefetch_group(fake + i);
    }
  };

  bool holds() const { return true; }
  Run run(int64_t sample, int64_t start, int64_t, Scratch* scratch) const {
    return rerun(sample, start, scratch);
  }
  Run rerun(int64_t sample, int64_t start, Scratch*) const {
    const int64_t at = sample * size + start;
    return {images + at, teacher + at, fake + at};
  }
  Factors factors(int64_t, double factor) const {
    const float r = static_cast<float>(factor);
    return {-r, r, 0.0f};
  }
};

// T = c_skip x_t + c_out A and F = c_skip x_t + c_out B of raw outputs A and B, with x_t given or,
// where `keyed`, images + sigma noise. c_skip x_t is left out of d, which its rounding would drown.
template <class T, class R, bool keyed>
struct Raw {
  static constexpr int64_t kHeld = 16384;  // elements whose noise stays in the second-level cache
  using Images = T;
  using Outputs = R;
  struct Scratch {
    alignas(64) float noise[keyed ? kHeld + kOvershoot : 1];
  };

  const RawArguments& given;
  const NoiseKey& key;
  const T* images;
  const R *teacher, *fake;
  int64_t size;

  struct Run {
    const T *x, *noisy;
    const R *teacher, *fake;
    const float* noise;
    F sigma, c_skip, c_out;

    template <class Read>
    SIDFAST_INLINE F error(const Read& read, int64_t i) const {
      const F image = read(x + i);
      F x_t;
      if constexpr (keyed) {
        x_t = fma(sigma, read(noise + i), image);
      } else {
        x_t = read(noisy + i);
      }
      return fma(c_out, read(teacher + i), fms(c_skip, x_t, image));
    }
    template <class Read>
    SIDFAST_INLINE F difference(const Read& read, int64_t i) const {
      return c_out * (read(teacher + i) - read(fake + i));
    }
    SIDFAST_INLINE void prefetch(int64_t i) const {
      prefetch_group(x + i);
      if constexpr (!keyed) prefetch_group(noisy + i);
      prefetch_group(teacher + i);
      prefetch_group(fake + i);
    }
  };

  bool holds() const { return !keyed || size <= kHeld; }
  Run run(int64_t sample, int64_t start, [[maybe_unused]] int64_t count, Scratch* scratch) const {
    if constexpr (keyed) {
      const SampleKey own{key.seed, static_cast<uint64_t>(key.index[sample]), key.stream};
      fill<Normals>(place(start, scratch), own, start, count);
    }
    return rerun(sample, start, scratch);
  }
  Run rerun(int64_t sample, int64_t start, Scratch* scratch) const {
    const int64_t at = sample * size + start;
    const T* const noisy = static_cast<const T*>(given.noisy);
    return {images + at,
            noisy + (keyed ? 0 : at),
            teacher + at,
            fake + at,
            place(start, scratch),
            F(given.sigma[sample]),
            F(given.c_skip[sample]),
            F(given.c_out[sample])};
  }
  Factors factors(int64_t sample, double factor) const {
    const double skip = given.c_skip[sample], out = given.c_out[sample];
    return {static_cast<float>(factor * (keyed ? skip - 1.0 : -1.0)),
            static_cast<float>(factor * out), static_cast<float>(factor * skip)};
  }

 private:
  // `start` is a multiple of kBlock, so that whole counters begin there.
  float* place(int64_t start, Scratch* scratch) const {
    return scratch->noise + (keyed && holds() ? start : 0);
  }
};

}  // namespace sidfast::SIDFAST_ISA
