// Fields of words as the bytes that are multiplied, where they stand if a processor can do so.
#pragma once

#include <cstdint>

#include "product.h"
#include "tile-inl.h"
#include "unpack-inl.h"

namespace gossamer {
namespace {

// Field `kField` of every byte as unsigned codes: where it stands if `Dot` takes any byte.
template <class S, int kBits, int kField>
GOSSAMER_INLINE typename S::Bytes Codes(typename S::Bytes word) {
  constexpr int kMask = (1 << kBits) - 1;
  constexpr int kFlip = Offset<S>(kBits);
  if constexpr (kBits == 8) {
    return S::MaskFlip(word, S::Fill(kMask), S::Fill(kFlip));
  } else if constexpr (S::kAnyByte) {
    constexpr int kShift = kBits * kField;
    return S::MaskFlip(word, S::Fill(kMask << kShift), S::Fill(kFlip << kShift));
  } else {
    return S::MaskFlip(S::template ShiftRight<kBits * kField>(word), S::Fill(kMask),
                       S::Fill(kFlip));
  }
}

template <class S, int kBits>
GOSSAMER_INLINE typename S::Sums DotCodes(typename S::Sums sums, typename S::Bytes codes,
                                          typename S::Bytes x) {
  if constexpr (kBits == 8 || S::kAnyByte) return S::Dot(sums, codes, x);
  return S::DotSmall(sums, codes, x);
}

// Sums of fields that were left where they stand, brought to one scale.
template <class S, int kBits, int kSums>
GOSSAMER_INLINE typename S::Sums Combine(const typename S::Sums (&parts)[kSums]) {
  typename S::Sums total = parts[0];
  Unroll<kSums - 1>([&](auto i) GOSSAMER_STEP {
    total = S::Add(total, S::ShiftSums(parts[i + 1], kBits * (i + 1)));
  });
  return total;
}

template <class S, int kBits>
constexpr int kPartialSums = S::kAnyByte ? 8 / kBits : 1;

// Multiplies a tile by some rows, the first of which is `first_row` of the product.
using TileFn = void (*)(const Product& p, int64_t tile, int64_t first_row, const Row* rows);

}  // namespace
}  // namespace gossamer
