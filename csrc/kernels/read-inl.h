// Reads memory as fast as it goes: the bound that products are held against.
#pragma once

#include <cstdint>

#include "packed.h"

namespace gossamer {
namespace {

// Reads `bytes` bytes in `streams` equal parts side by side, asking for what comes `ahead` bytes
// later; gives a number that depends on all. Parts are multiples of 256 bytes, the rest is left.
template <class S>
uint64_t ReadMemory(const uint8_t* data, int64_t bytes, int64_t streams, int64_t ahead) {
  constexpr int64_t kStep = 4 * kVectorBytes;
  const int64_t part = bytes / streams / kStep * kStep;
  auto a = S::Zero(), b = S::Zero(), c = S::Zero(), d = S::Zero();
  const auto load = [](const uint8_t* from) {
    return S::FromBytes(S::Load(from));
  };
  for (int64_t at = 0; at < part; at += kStep) {
    for (int64_t s = 0; s < streams; ++s) {
      const uint8_t* from = data + s * part + at;
      if (ahead > 0) {
        for (int i = 0; i < 4; ++i) __builtin_prefetch(from + ahead + i * kVectorBytes);
      }
      a = S::Add(a, load(from));
      b = S::Add(b, load(from + kVectorBytes));
      c = S::Add(c, load(from + 2 * kVectorBytes));
      d = S::Add(d, load(from + 3 * kVectorBytes));
    }
  }
  return static_cast<uint64_t>(S::SumOf(S::Add(S::Add(a, b), S::Add(c, d))));
}

}  // namespace
}  // namespace gossamer
