// Any CPU: 4 lanes in plain arrays. Without an fma instruction libm's exact fmaf is called.
#pragma once

namespace sidfast::SIDFAST_ISA {

inline constexpr int kLanes = 4;

struct U {
  uint32_t v[kLanes];
  U() = default;
  SIDFAST_INLINE explicit U(uint32_t x) : v{x, x, x, x} {}
};

struct F {
  float v[kLanes];
  F() = default;
  SIDFAST_INLINE explicit F(float x) : v{x, x, x, x} {}
};

template <class Result, class Each>
SIDFAST_INLINE Result lanewise(Each each) {
  Result r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = each(i);
  return r;
}

SIDFAST_INLINE U operator+(U a, U b) { return lanewise<U>([&](int i) { return a.v[i] + b.v[i]; }); }
SIDFAST_INLINE U operator-(U a, U b) { return lanewise<U>([&](int i) { return a.v[i] - b.v[i]; }); }
SIDFAST_INLINE U operator&(U a, U b) { return lanewise<U>([&](int i) { return a.v[i] & b.v[i]; }); }
SIDFAST_INLINE U operator|(U a, U b) { return lanewise<U>([&](int i) { return a.v[i] | b.v[i]; }); }
SIDFAST_INLINE U operator^(U a, U b) { return lanewise<U>([&](int i) { return a.v[i] ^ b.v[i]; }); }
template <int bits>
SIDFAST_INLINE U shift_left(U a) { return lanewise<U>([&](int i) { return a.v[i] << bits; }); }
template <int bits>
SIDFAST_INLINE U shift_right(U a) { return lanewise<U>([&](int i) { return a.v[i] >> bits; }); }
template <int bits>
SIDFAST_INLINE U shift_right_signed(U a) {
  return lanewise<U>(
      [&](int i) { return static_cast<uint32_t>(static_cast<int32_t>(a.v[i]) >> bits); });
}

// Words in pairs: the product of the even words fills the pair, (low, high).
SIDFAST_INLINE U multiply_even(U a, U b) {
  U r;
  for (int i = 0; i < kLanes; i += 2) {
    const uint64_t product = static_cast<uint64_t>(a.v[i]) * b.v[i];
    r.v[i] = static_cast<uint32_t>(product);
    r.v[i + 1] = static_cast<uint32_t>(product >> 32);
  }
  return r;
}
SIDFAST_INLINE U odd_to_even(U a) {
  return lanewise<U>([&](int i) { return i % 2 ? 0u : a.v[i + 1]; });
}
SIDFAST_INLINE U join_even(U even, U odd) {
  return lanewise<U>([&](int i) { return i % 2 ? odd.v[i - 1] : even.v[i]; });
}
// b and c meet first: in Philox they are ready before a.
SIDFAST_INLINE U xor3(U a, U b, U c) { return a ^ (b ^ c); }

// Offsets, in even words, that make interleave_pairs and interleave give consecutive counters.
SIDFAST_INLINE U counter_offsets() {
  return lanewise<U>([](int i) { return i == 2 ? 1u : 0u; });
}
SIDFAST_INLINE void interleave_pairs(U a, U b, U* first, U* second) {
  for (int i = 0; i < 2; ++i) {
    first->v[i] = a.v[i];
    first->v[i + 2] = b.v[i];
    second->v[i] = a.v[i + 2];
    second->v[i + 2] = b.v[i + 2];
  }
}
SIDFAST_INLINE void interleave(F a, F b, F* first, F* second) {
  for (int i = 0; i < 2; ++i) {
    first->v[2 * i] = a.v[i];
    first->v[2 * i + 1] = b.v[i];
    second->v[2 * i] = a.v[i + 2];
    second->v[2 * i + 1] = b.v[i + 2];
  }
}

SIDFAST_INLINE F operator+(F a, F b) { return lanewise<F>([&](int i) { return a.v[i] + b.v[i]; }); }
SIDFAST_INLINE F operator-(F a, F b) { return lanewise<F>([&](int i) { return a.v[i] - b.v[i]; }); }
SIDFAST_INLINE F operator*(F a, F b) { return lanewise<F>([&](int i) { return a.v[i] * b.v[i]; }); }
SIDFAST_INLINE F operator/(F a, F b) { return lanewise<F>([&](int i) { return a.v[i] / b.v[i]; }); }
SIDFAST_INLINE F fma(F a, F b, F c) {
  return lanewise<F>([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
SIDFAST_INLINE F fms(F a, F b, F c) {
  return lanewise<F>([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], -c.v[i]); });
}
// b where either is a NaN.
SIDFAST_INLINE F least(F a, F b) {
  return lanewise<F>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
SIDFAST_INLINE F greatest(F a, F b) {
  return lanewise<F>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
SIDFAST_INLINE F positive_part(F a) {
  return lanewise<F>([&](int i) { return a.v[i] > 0.0f ? a.v[i] : 0.0f; });
}
SIDFAST_INLINE F square_root(F a) {
  return lanewise<F>([&](int i) { return __builtin_sqrtf(a.v[i]); });
}
SIDFAST_INLINE F as_float(U a) {
  F r;
  std::memcpy(&r, &a, sizeof r);
  return r;
}
SIDFAST_INLINE U as_words(F a) {
  U r;
  std::memcpy(&r, &a, sizeof r);
  return r;
}
SIDFAST_INLINE F from_signed(U a) {
  return lanewise<F>([&](int i) { return static_cast<float>(static_cast<int32_t>(a.v[i])); });
}
SIDFAST_INLINE F absolute(F a) { return as_float(as_words(a) & U(0x7fffffffu)); }

// Per lane: where the top bit of `mask` is set a, else b.
SIDFAST_INLINE F select(U mask, F a, F b) {
  return lanewise<F>([&](int i) { return mask.v[i] >> 31 ? a.v[i] : b.v[i]; });
}
// All ones where a >= b, unsigned.
SIDFAST_INLINE U at_least(U a, U b) {
  return lanewise<U>([&](int i) { return a.v[i] >= b.v[i] ? ~0u : 0u; });
}

template <class Vector, class T>
SIDFAST_INLINE Vector copied(const T* p) {
  Vector r;
  std::memcpy(&r, p, sizeof r);
  return r;
}
SIDFAST_INLINE U load_words(const uint32_t* p) { return copied<U>(p); }
SIDFAST_INLINE void store_words(uint32_t* p, U a) { std::memcpy(p, &a, sizeof a); }
SIDFAST_INLINE F load(const float* p) { return copied<F>(p); }
SIDFAST_INLINE void store(float* p, F a) { std::memcpy(p, &a, sizeof a); }
SIDFAST_INLINE void stream(float* p, F a) { store(p, a); }
SIDFAST_INLINE void stream_fence() {}

SIDFAST_INLINE F load(const bfloat16* p) {
  return as_float(lanewise<U>([&](int i) { return static_cast<uint32_t>(p[i].bits) << 16; }));
}
SIDFAST_INLINE void store(bfloat16* p, F a) {
  const U bits = as_words(a);
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t b = bits.v[i];
    const bool not_a_number = (b & 0x7fffffffu) > 0x7f800000u;
    p[i].bits = static_cast<uint16_t>(
        not_a_number ? 0x7fc0u : (b + 0x7fffu + (b >> 16 & 1u)) >> 16);
  }
}
// Scaling by 2^112 moves half's exponents, subnormals included, onto float's exactly.
SIDFAST_INLINE F load(const float16* p) {
  return as_float(lanewise<U>([&](int i) {
    const uint32_t half = p[i].bits, magnitude = half & 0x7fffu, sign = (half & 0x8000u) << 16;
    if (magnitude >= 0x7c00u) return sign | 0x7f800000u | (magnitude & 0x3ffu) << 13;
    const uint32_t widened = magnitude << 13;
    float value;
    std::memcpy(&value, &widened, sizeof value);
    value *= 0x1p112f;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return sign | bits;
  }));
}
SIDFAST_INLINE void store(float16* p, F a) {
  const U words = as_words(a);
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t sign = words.v[i] >> 16 & 0x8000u, magnitude = words.v[i] & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
      half = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
      half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // below 2^-14: adding 1/2 leaves the rounded subnormal
      float value;
      std::memcpy(&value, &magnitude, sizeof value);
      value += 0.5f;
      std::memcpy(&half, &value, sizeof half);
      half -= 0x3f000000u;
    } else {
      half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    }
    p[i].bits = static_cast<uint16_t>(sign | half);
  }
}

}  // namespace sidfast::SIDFAST_ISA
