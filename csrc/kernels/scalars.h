// Single numbers of the types that planes and activations are stored in.
#pragma once

#include <cstdint>

#include "packed.h"

namespace gossamer {
namespace {

inline float FromBits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// Nearest, half to even; NaN stays NaN.
inline uint16_t ToBfloat16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// absmax / qmax; 1 below the normal numbers; NaN stays, so that it reaches the result.
inline float ActivationScale(float absmax, int qmax) {
  constexpr float kSmallestNormal = 1.17549435e-38f;
  const float scale = absmax * (1.0f / static_cast<float>(qmax));
  if (scale < kSmallestNormal) return 1.0f;
  return scale > 1.0f / kSmallestNormal ? 1.0f / kSmallestNormal : scale;
}

// E8M0: a power of two. E4M3: sign, 4 bits of exponent with bias 7, 3 of mantissa, no infinities.
inline float ByteScale(uint8_t stored, ScaleType type) {
  if (type == ScaleType::kE8m0) return FromBits(uint32_t{stored} << 23);
  const uint32_t sign = uint32_t{stored} >> 7 << 31;
  const uint32_t exponent = stored >> 3 & 15, mantissa = stored & 7;
  if ((stored & 0x7f) == 0x7f) return FromBits(0x7fc00000);
  if (exponent == 0) {
    const float subnormal = static_cast<float>(mantissa) / 512.0f;
    return sign ? -subnormal : subnormal;
  }
  return FromBits(sign | (exponent + 120) << 23 | mantissa << 20);
}

}  // namespace
}  // namespace gossamer
