// A few rows of quantized activations: words of codes are unpacked in registers.
#pragma once

#include <cstdint>

#include "bitmaps-inl.h"
#include "codes-inl.h"
#include "packed.h"
#include "prepared.h"
#include "product.h"
#include "tile-inl.h"
#include "unpack-inl.h"

namespace gossamer {
namespace {

// Dense codes of 8, 4 or 2 bits, groups of whole words. Words take turns at kTurns sums, so that as
// many are on their way as products take to finish.
template <class S, int kCodes, int kRows, int kTurns>
void DenseTile(const Product& p, int64_t tile, int64_t first_row, const Row* rows) {
  using Sums = typename S::Sums;
  constexpr int kWindows = 8 / kBitsOf<kCodes>;  // of a word
  constexpr int kParts = kPartialSums<S, kCodes>;
  const Packed& k = p.kernel;
  const int64_t words = k.group_size() / (4 * kWindows);  // of a group
  const uint8_t* word = k.values + tile * k.value_bytes;
  const CodeMasks<S, kCodes> masks(k);
  RowTotals<S, kRows> totals(k, rows);
  for (int64_t group = 0; group < k.groups; ++group) {
    Sums sums[kTurns][kRows][kParts];
    Unroll<kTurns * kRows * kParts>([&](auto i) GOSSAMER_STEP {
      sums[i / (kRows * kParts)][i / kParts % kRows][i % kParts] = S::Zero();
    });
    for (int64_t w = 0; w < words; w += kTurns) {
      Unroll<kTurns>([&](auto u) GOSSAMER_STEP {
        const auto fields = LoadStream<S>(word + u * kVectorBytes);
        Unroll<kWindows>([&](auto v) GOSSAMER_STEP {
          const auto codes = Codes<S, kCodes, v>(fields, masks);
          Unroll<kRows>([&](auto r) GOSSAMER_STEP {
            const auto four = S::Window(totals.x[r] + 4 * (kWindows * u + v));
            Sums& sum = sums[u][r][v % kParts];
            sum = DotCodes<S, kCodes>(sum, codes, four);
          });
        });
      });
      word += kTurns * kVectorBytes;
      totals.Skip(4 * kWindows * kTurns);
    }
    const auto scales = LoadScales<S>(k, tile, group);
    const Sums offset = GroupShift<S>(k, tile, group);
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      Sums total = S::Zero();
      Unroll<kTurns>([&](auto u) GOSSAMER_STEP {
        total = S::Add(total, Combine<S, kCodes>(sums[u][r]));
      });
      const Sums shift = S::Multiply(offset, S::FillSums(rows[r].sums()[group]));
      AddScaled<S>(totals.y[r], S::Subtract(total, shift), scales);
    });
  }
  totals.Write(p, tile, first_row, rows);
}

// What makes indices into a window's table of the places of even and of odd windows, and of those
// that find theirs in its second half.
template <class S, int kPlaceBits, int kN, bool kShares>
struct PlaceMasks {
  static constexpr int kHalves = kShares ? 2 : 1;
  typename S::Bytes mask[2], base[kHalves][2];

  GOSSAMER_INLINE PlaceMasks() {
    constexpr int kM = 1 << kPlaceBits;
    constexpr bool kInPlace = kPlaceBits == 2;  // odd windows; see WriteTables
    constexpr auto bases = [](int step, int first) {
      uint32_t word = 0;
      for (int j = 0; j < 4; ++j) word |= uint32_t((first + j / kN) * step) << (8 * j);
      return word;
    };
    mask[0] = S::Keep(S::Fill(kM - 1));
    mask[1] = kInPlace ? S::Keep(S::Fill(12)) : mask[0];
    Unroll<kHalves>([&](auto half) GOSSAMER_STEP {
      constexpr int kFirst = half * 4 / kN;
      base[half][0] = S::Keep(S::FillWord(bases(kM, kFirst)));
      base[half][1] = kInPlace ? S::Keep(S::FillWord(bases(1, kFirst))) : base[half][0];
    });
  }
};

// The places of window `kWindow` of a word as indices into its table.
template <class S, int kPlaceBits, int kN, bool kShares, int kWindow>
GOSSAMER_INLINE typename S::Bytes Places(typename S::Bytes word, typename S::Bytes high,
                                         const PlaceMasks<S, kPlaceBits, kN, kShares>& masks) {
  constexpr int kHalf = kShares && kWindow * kPlaceBits >= 4;
  const auto& mask = masks.mask[kWindow % 2];
  const auto& base = masks.base[kHalf][kWindow % 2];
  if constexpr (kPlaceBits == 2) return S::MaskOr(kWindow < 2 ? word : high, mask, base);
  return S::MaskOr(S::template ShiftRight<kPlaceBits * kWindow>(word), mask, base);
}

// Kept codes of 8, 4 or 2 bits and their places, groups of whole words of places.
template <class S, int kCodes, int kPlaceBits, int kN, bool kShares, int kRows>
void PlacesTile(const Product& p, int64_t tile, int64_t first_row, const Row* rows) {
  using Bytes = typename S::Bytes;
  using Sums = typename S::Sums;
  constexpr int kWindows = 8 / kPlaceBits;  // of a word of places
  constexpr int kCodeWindows = 8 / kBitsOf<kCodes>;   // of a word of codes
  constexpr int kWords = kWindows / kCodeWindows;
  constexpr int kParts = kPartialSums<S, kCodes>;
  constexpr int kTables = kShares ? kWindows / 2 : kWindows;
  static_assert(kWindows % kCodeWindows == 0, "words of codes fill words of places");
  const Packed& k = p.kernel;
  const int64_t words = k.group_size() / k.m * k.n / (4 * kWindows);
  const uint8_t* word = k.values + tile * k.value_bytes;
  const uint8_t* place = k.indices + tile * k.index_bytes;
  const CodeMasks<S, kCodes> masks(k);
  RowTotals<S, kRows> totals(k, rows);
  const PlaceMasks<S, kPlaceBits, kN, kShares> place_masks;
  const Bytes offset = S::Keep(S::Fill(kCodesOffset<S, kCodes>));
  for (int64_t group = 0; group < k.groups; ++group) {
    Sums sums[kRows][kParts];
    Sums shift[kRows][2];  // take turns, so that one does not wait for the other
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      Unroll<kParts>([&](auto i) GOSSAMER_STEP { sums[r][i] = S::Zero(); });
      shift[r][0] = shift[r][1] = S::Zero();
    });
    for (int64_t w = 0; w < words; ++w, place += kVectorBytes, word += kWords * kVectorBytes) {
      const Bytes low = LoadStream<S>(place), high = S::template ShiftRight<4>(low);
      Bytes fields[kWords];
      LoadWords<S>(word, fields);
      Bytes shared[kRows][kTables];
      Unroll<kShares ? kRows * kTables : 0>([&](auto i) GOSSAMER_STEP {
        constexpr int kRow = i / kTables, kTable = i % kTables;
        shared[kRow][kTable] = S::Table(totals.x[kRow] + kTableBytes * kTable);
      });
      Unroll<kWindows>([&](auto v) GOSSAMER_STEP {
        const Bytes index = Places<S, kPlaceBits, kN, kShares, v>(low, high, place_masks);
        const Bytes codes = Codes<S, kCodes, v % kCodeWindows>(fields[v / kCodeWindows], masks);
        // Half a table is enough for windows that choose from 8, unless it is turned.
        constexpr bool kHalf = (4 << kPlaceBits) / kN == 8 && !(kPlaceBits == 2 && v % 2);
        Unroll<kRows>([&](auto r) GOSSAMER_STEP {
          const int8_t* own = totals.x[r] + kTableBytes * v;
          const Bytes table = kShares ? shared[r][v % kTables]
                              : kHalf ? S::HalfTable(own)
                                      : S::Table(own);
          const Bytes chosen = S::Lookup(table, index);
          Sums &sum = sums[r][v % kParts], &moved = shift[r][v % 2];
          sum = DotCodes<S, kCodes>(sum, codes, chosen);
          moved = DotCodes<S, kCodes>(moved, offset, chosen);
        });
      });
      totals.Skip(kTableBytes * kTables);
    }
    const auto scales = LoadScales<S>(k, tile, group);
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      const Sums moved = S::Add(shift[r][0], shift[r][1]);
      AddScaled<S>(totals.y[r], S::Subtract(Combine<S, kCodes>(sums[r]), moved), scales);
    });
  }
  totals.Write(p, tile, first_row, rows);
}

template <class S, int kRows>
TileFn FindTile(const Product& p) {
  const Packed& k = p.kernel;
  if constexpr (S::kExpands) {
    if (p.method() == Method::kBitmap) {
      return ForBitmaps<TileFn>(k, [](auto codes, auto m) -> TileFn {
        return BitmapTile<S, codes, m, kRows>;
      });
    }
  }
  return ForCodes<TileFn>(k, [&](auto codes) {
    constexpr int kCodes = decltype(codes)::value, kBits = kBitsOf<kCodes>;
    if (p.method() == Method::kPlaces) {
      return ForPlaces<TileFn>(k, [&](auto place_bits, auto n) -> TileFn {
        if constexpr (kBits < place_bits) return nullptr;  // which method() refuses
        else if (!SharesTables(k)) return PlacesTile<S, kCodes, place_bits, n, false, kRows>;
        else if constexpr ((8 << place_bits) / n > kTableBytes) return nullptr;  // none shares
        else return PlacesTile<S, kCodes, place_bits, n, true, kRows>;
      });
    }
    constexpr int kTurns = kRows == 1 ? S::kDenseTurns : 1;
    const bool whole = k.group_size() * kBits / 32 % kTurns == 0;
    return whole ? DenseTile<S, kCodes, kRows, kTurns> : DenseTile<S, kCodes, kRows, 1>;
  });
}

// A tile's words are read once from memory, then again for every four rows from cache.
template <class S>
void MultiplyInRegisters(const Product& p, const uint8_t* prepared, int64_t first, int64_t last) {
  const TileFn four = FindTile<S, 4>(p), one = FindTile<S, 1>(p);
  Row rows[kFewRows];
  for (int64_t r = 0; r < p.rows; ++r) rows[r].at = prepared + r * p.row_bytes();
  for (int64_t tile = first; tile < last; ++tile) {
    ByFours(p.rows, [&](int64_t r) { four(p, tile, r, rows + r); },
            [&](int64_t r) { one(p, tile, r, rows + r); });
  }
}

}  // namespace
}  // namespace gossamer
