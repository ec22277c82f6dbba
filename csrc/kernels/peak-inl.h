// Multiplies as fast as it goes: the bound that products of many rows are held against.
#pragma once

#include <cstdint>
#include <type_traits>

#include "packed.h"
#include "tile-inl.h"

namespace gossamer {
namespace {

// Room for the sums.
constexpr int kMostSums = 12;

// Adds `steps` times products to sums that do not wait for one another: of the bytes at `data`, one
// vector, each below 128, or of them as floats. Gives how many multiply-adds these were; `result`
// gets kMostSums * kLanes floats at most, so that they are not for nothing.
template <class S>
int64_t MultiplyAdds(const uint8_t* data, int64_t steps, bool floats, float* result) {
  // Enough to hide how long one takes, and few enough for the registers where a vector is several.
  constexpr int kSums = std::is_class_v<typename S::Sums> ? 6 : kMostSums;
  const auto bytes = S::Load(data);
  if (floats) {
    const auto factor = S::ToFloats(S::FromBytes(bytes));
    typename S::Floats sums[kSums];
    Unroll<kSums>([&](auto i) GOSSAMER_STEP { sums[i] = S::FillFloats(static_cast<float>(i)); });
    for (int64_t step = 0; step < steps; ++step) {
      Unroll<kSums>([&](auto i) GOSSAMER_STEP { sums[i] = S::FusedAdd(sums[i], factor, factor); });
    }
    Unroll<kSums>([&](auto i) GOSSAMER_STEP { S::StoreFloats(result + i * kLanes, sums[i]); });
    return steps * kSums * kLanes;
  }
  typename S::Sums sums[kSums];
  Unroll<kSums>([&](auto i) GOSSAMER_STEP { sums[i] = S::FillSums(i); });
  for (int64_t step = 0; step < steps; ++step) {
    Unroll<kSums>([&](auto i) GOSSAMER_STEP { sums[i] = S::DotSmall(sums[i], bytes, bytes); });
  }
  Unroll<kSums>([&](auto i) GOSSAMER_STEP {
    S::StoreFloats(result + i * kLanes, S::ToFloats(sums[i]));
  });
  return steps * kSums * kVectorBytes;
}

}  // namespace
}  // namespace gossamer
