// Fields of words as the bytes that are multiplied, where they stand if a processor can do so.
#pragma once

#include <cstdint>

#include "product.h"
#include "tile-inl.h"
#include "unpack-inl.h"

namespace gossamer {
namespace {

// Whether fields are bytes to `Dot` where they stand; those of a codebook are looked up first.
template <class S, int kCodes>
constexpr bool kInPlace = S::kAnyByte && kCodes != kBookCodes;

// Fields that a byte has, each with sums of its own where it stays in place.
template <class S, int kCodes>
constexpr int kPartialSums = kInPlace<S, kCodes> ? 8 / kCodes : 1;

// What is taken off the bytes that codes become.
template <class S, int kCodes>
constexpr int kCodesOffset = kCodes == kBookCodes ? S::kByteOffset : Offset<S>(kCodes);

// What makes unsigned codes of fields. Kept, or GCC fills vectors again in every group.
template <class S, int kCodes>
struct CodeMasks {
  typename S::Bytes mask[kPartialSums<S, kCodes>], flip[kPartialSums<S, kCodes>];

  GOSSAMER_INLINE explicit CodeMasks(const Packed&) {
    Unroll<kPartialSums<S, kCodes>>([&](auto i) GOSSAMER_STEP {
      mask[i] = S::Keep(S::Fill(((1 << kCodes) - 1) << (kCodes * i)));
      flip[i] = S::Keep(S::Fill(kCodesOffset<S, kCodes> << (kCodes * i)));
    });
  }
};

template <class S>
struct CodeMasks<S, kBookCodes> {
  typename S::Bytes mask, none, table;

  GOSSAMER_INLINE explicit CodeMasks(const Packed& k)
      : mask(S::Keep(S::Fill(15))), none(S::Fill(0)), table(S::Keep(BookTable<S>(k.book))) {}
};

// Field `kField` of every byte as unsigned codes: in place if `Dot` takes any byte.
template <class S, int kCodes, int kField>
GOSSAMER_INLINE typename S::Bytes Codes(typename S::Bytes word,
                                        const CodeMasks<S, kCodes>& masks) {
  constexpr int kShift = kBitsOf<kCodes> * kField;
  if constexpr (kCodes == kBookCodes) {
    const auto field = S::MaskFlip(S::template ShiftRight<kShift>(word), masks.mask, masks.none);
    return S::Lookup(masks.table, field);
  } else if constexpr (kCodes == 8 || kInPlace<S, kCodes>) {
    return S::MaskFlip(word, masks.mask[kField], masks.flip[kField]);
  } else {
    const auto field = S::template ShiftRight<kShift>(word);
    return S::MaskFlip(field, masks.mask[0], masks.flip[0]);
  }
}

template <class S, int kCodes>
GOSSAMER_INLINE typename S::Sums DotCodes(typename S::Sums sums, typename S::Bytes codes,
                                          typename S::Bytes x) {
  constexpr bool kSmall = kCodes == 4 || kCodes == 2;
  return kSmall && !S::kAnyByte ? S::DotSmall(sums, codes, x) : S::Dot(sums, codes, x);
}

// Sums of fields that were left where they stand, brought to one scale.
template <class S, int kCodes, int kSums>
GOSSAMER_INLINE typename S::Sums Combine(const typename S::Sums (&parts)[kSums]) {
  typename S::Sums total = parts[0];
  Unroll<kSums - 1>([&](auto i) GOSSAMER_STEP {
    total = S::Add(total, S::ShiftSums(parts[i + 1], kBitsOf<kCodes> * (i + 1)));
  });
  return total;
}

// Multiplies a tile by some rows, the first of which is `first_row` of the product.
using TileFn = void (*)(const Product& p, int64_t tile, int64_t first_row, const Row* rows);

}  // namespace
}  // namespace gossamer
