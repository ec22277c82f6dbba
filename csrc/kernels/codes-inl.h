// Fields of words as the bytes that are multiplied, where they stand if a processor can do so.
#pragma once

#include <cstdint>

#include "product.h"
#include "tile-inl.h"
#include "unpack-inl.h"

namespace gossamer {
namespace {

// Fields that a byte has, each with sums of its own where `Dot` takes it where it stands.
template <class S, int kBits>
constexpr int kPartialSums = S::kAnyByte ? 8 / kBits : 1;

// What makes unsigned codes of fields. Kept, or GCC fills vectors again in every group.
template <class S, int kBits>
struct CodeMasks {
  typename S::Bytes mask[kPartialSums<S, kBits>], flip[kPartialSums<S, kBits>];

  GOSSAMER_INLINE CodeMasks() {
    Unroll<kPartialSums<S, kBits>>([&](auto i) GOSSAMER_STEP {
      mask[i] = S::Keep(S::Fill(((1 << kBits) - 1) << (kBits * i)));
      flip[i] = S::Keep(S::Fill(Offset<S>(kBits) << (kBits * i)));
    });
  }
};

// Field `kField` of every byte as unsigned codes: where it stands if `Dot` takes any byte.
template <class S, int kBits, int kField>
GOSSAMER_INLINE typename S::Bytes Codes(typename S::Bytes word, const CodeMasks<S, kBits>& masks) {
  if constexpr (kBits == 8 || S::kAnyByte) {
    return S::MaskFlip(word, masks.mask[kField], masks.flip[kField]);
  } else {
    const auto field = S::template ShiftRight<kBits * kField>(word);
    return S::MaskFlip(field, masks.mask[0], masks.flip[0]);
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

// Multiplies a tile by some rows, the first of which is `first_row` of the product.
using TileFn = void (*)(const Product& p, int64_t tile, int64_t first_row, const Row* rows);

}  // namespace
}  // namespace gossamer
