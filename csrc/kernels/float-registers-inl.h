// A few rows of activations left floats: words of codes become floats in registers, where an
// instruction looks up sixteen of them.
#pragma once

#include <cstdint>

#include "bitmaps-inl.h"
#include "packed.h"
#include "product.h"
#include "scalars.h"
#include "tile-inl.h"

namespace gossamer {
namespace {

// Codes of 4 or 2 bits by their fields, again and again: as floats, and as the upper halves of
// floats whose lower ones are zeros. 8 bits need no tables.
template <class S, int kBits>
struct CodeTables {
  typename S::Floats whole;
  typename S::Bytes halves;

  GOSSAMER_INLINE explicit CodeTables(const Packed& k) {
    float floats[kLanes];
    uint16_t upper[2 * kLanes];
    for (int i = 0; i < 2 * kLanes; ++i) {
      const int field = i & ((1 << kBits) - 1);
      const int code = (field ^ 1 << (kBits - 1)) - (1 << (kBits - 1));
      floats[i % kLanes] = static_cast<float>(k.book == nullptr ? code : k.book[i % kLanes]);
      upper[i] = ToBfloat16(floats[i % kLanes]);
    }
    whole = S::LoadFloats(floats);
    halves = S::Load(reinterpret_cast<const uint8_t*>(upper));
  }
};

// Bits at which a field of a word stands.
template <int kBits>
constexpr int FieldShift(int field) {
  return 8 * (field % 4) + kBits * (field / 4);
}

// A field in the upper half of a lane is looked up where it stands after the shift that its
// neighbour in the lower half needs: half of the shifts.
template <class S, int kBits, int kField>
GOSSAMER_INLINE typename S::Floats CodeFloats(typename S::Bytes word,
                                              const CodeTables<S, kBits>& tables) {
  constexpr int kShift = FieldShift<kBits>(kField);
  if constexpr (kBits == 8) return S::ToFloats(S::template SignedByteAt<kShift>(word));
  const auto index = S::template ShiftRight<kShift % 16>(word);
  if constexpr (kShift < 16) return S::LookupFloats(tables.whole, index);
  return S::LookupUpper(tables.halves, index);
}

// What a tile's product with kRows rows adds up. Terms take turns at a group's sums, so that one
// does not wait for the last.
template <class S, int kRows>
struct FloatTotals {
  static constexpr int kTurns = kRows == 1 ? 4 : 2;
  typename S::Floats y[kRows];
  typename S::Floats sums[kRows][kTurns];
  const float* x[kRows];

  GOSSAMER_INLINE explicit FloatTotals(const float* const* rows) {
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      x[r] = rows[r];
      y[r] = S::ZeroFloats();
    });
  }
  GOSSAMER_INLINE void StartGroup() {
    Unroll<kRows * kTurns>([&](auto i) GOSSAMER_STEP {
      sums[i / kTurns][i % kTurns] = S::ZeroFloats();
    });
  }
  template <int kTerm>
  GOSSAMER_INLINE void Add(int row, typename S::Floats weight, typename S::Floats value) {
    sums[row][kTerm % kTurns] = S::FusedAdd(sums[row][kTerm % kTurns], weight, value);
  }
  GOSSAMER_INLINE void EndGroup(typename S::Floats scales) {
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      auto total = sums[r][0];
      Unroll<kTurns - 1>([&](auto i) GOSSAMER_STEP {
        total = S::AddFloats(total, sums[r][i + 1]);
      });
      y[r] = S::FusedAdd(y[r], total, scales);
    });
  }
  GOSSAMER_INLINE void Write(const Product& p, int64_t tile, int64_t first_row) {
    Unroll<kRows>([&](auto r) GOSSAMER_STEP { Finish<S>(p, first_row + r, tile, 1.0f, y[r]); });
  }
};

// With zero points these are taken off every code: taking them off sums would round what cancels.
template <class S, int kBits, bool kZeros, int kRows>
void FloatDenseTile(const Product& p, int64_t tile, int64_t first_row, const float* const* rows) {
  constexpr int kFields = 32 / kBits;
  const Packed& k = p.kernel;
  const int64_t words = k.group_size() / kFields;
  const uint8_t* word = k.values + tile * k.value_bytes;
  const CodeTables<S, kBits> tables(k);
  FloatTotals<S, kRows> totals(rows);
  for (int64_t group = 0; group < k.groups; ++group) {
    totals.StartGroup();
    auto zero = S::ZeroFloats();
    if constexpr (kZeros) {
      zero = S::ToFloats(S::Widen(k.zeros + (tile * k.groups + group) * kLanes));
    }
    for (int64_t w = 0; w < words; ++w, word += kVectorBytes) {
      const auto fields = LoadStream<S>(word);
      Unroll<kFields>([&](auto f) GOSSAMER_STEP {
        auto weight = CodeFloats<S, kBits, f>(fields, tables);
        if constexpr (kZeros) weight = S::SubtractFloats(weight, zero);
        Unroll<kRows>([&](auto r) GOSSAMER_STEP {
          totals.template Add<f>(r, weight, S::FillFloats(totals.x[r][f]));
        });
      });
      Unroll<kRows>([&](auto r) GOSSAMER_STEP { totals.x[r] += kFields; });
    }
    totals.EndGroup(LoadScales<S>(k, tile, group));
  }
  totals.Write(p, tile, first_row);
}

template <class S, int kBits, int kPlaceBits, int kN, int kRows>
void FloatPlacesTile(const Product& p, int64_t tile, int64_t first_row, const float* const* rows) {
  constexpr int kM = 1 << kPlaceBits;
  constexpr int kFields = 32 / kPlaceBits, kCodeFields = 32 / kBits;
  constexpr int kWords = kFields / kCodeFields;
  static_assert(kFields % kCodeFields == 0, "words of codes fill words of places");
  const Packed& k = p.kernel;
  const int64_t words = k.group_size() / k.m * k.n / kFields;
  const uint8_t* word = k.values + tile * k.value_bytes;
  const uint8_t* place = k.indices + tile * k.index_bytes;
  const CodeTables<S, kBits> tables(k);
  FloatTotals<S, kRows> totals(rows);
  for (int64_t group = 0; group < k.groups; ++group) {
    totals.StartGroup();
    for (int64_t w = 0; w < words; ++w, place += kVectorBytes, word += kWords * kVectorBytes) {
      const auto places = LoadStream<S>(place);
      typename S::Bytes fields[kWords];
      LoadWords<S>(word, fields);
      Unroll<kFields>([&](auto f) GOSSAMER_STEP {
        const auto at = S::template ShiftRight<FieldShift<kPlaceBits>(f)>(places);
        const auto weight = CodeFloats<S, kBits, f % kCodeFields>(fields[f / kCodeFields], tables);
        Unroll<kRows>([&](auto r) GOSSAMER_STEP {
          const auto near = S::template RepeatFloats<kM>(totals.x[r] + f / kN * kM);
          totals.template Add<f>(r, weight, S::LookupFloats(near, at));
        });
      });
      Unroll<kRows>([&](auto r) GOSSAMER_STEP { totals.x[r] += kFields / kN * kM; });
    }
    totals.EndGroup(LoadScales<S>(k, tile, group));
  }
  totals.Write(p, tile, first_row);
}

// Places of the kept codes of group `kGroup` of a word of bitmaps, four bytes a lane for each four.
template <class S, int kM, int kGroup>
GOSSAMER_INLINE void PlacesOfBitmap(const uint64_t* masks, typename S::Bytes* places) {
  constexpr int kParts = kMapParts<kM>;
  const uint64_t* group = masks + kGroup * kParts;
  const auto first = S::template KeptPlaces<kM>(group[0], group[1]);
  if constexpr (kM == 8) {
    places[0] = first;
  } else {
    const auto second = S::template KeptPlaces<kM>(group[2], group[3]);
    places[0] = S::template Neighbours<0>(first, second);
    places[1] = S::template Neighbours<1>(first, second);
  }
}

// 4:8 and 8:16 with bitmaps, groups of whole words of them: places first, then as above.
template <class S, int kBits, int kM, int kRows>
void FloatBitmapTile(const Product& p, int64_t tile, int64_t first_row, const float* const* rows) {
  constexpr int kCodeFields = 32 / kBits, kKept = kM / 2;
  constexpr int kWords = kMapElements / 2 / kCodeFields;
  const Packed& k = p.kernel;
  const int64_t words = k.group_size() / kMapElements;
  const uint8_t* word = k.values + tile * k.value_bytes;
  const uint8_t* map = k.indices + tile * k.index_bytes;
  const CodeTables<S, kBits> tables(k);
  FloatTotals<S, kRows> totals(rows);
  for (int64_t group = 0; group < k.groups; ++group) {
    totals.StartGroup();
    for (int64_t w = 0; w < words; ++w, map += kVectorBytes, word += kWords * kVectorBytes) {
      alignas(kVectorBytes) uint64_t masks[8];
      S::template StoreMasks<kM>(masks, LoadStream<S>(map));
      typename S::Bytes fields[kWords];
      LoadWords<S>(word, fields);
      Unroll<kMapElements / kM>([&](auto g) GOSSAMER_STEP {
        typename S::Bytes places[kKept / 4];
        PlacesOfBitmap<S, kM, g>(masks, places);
        Unroll<kKept>([&](auto i) GOSSAMER_STEP {
          constexpr int kField = g * kKept + i;
          const auto at = S::template ShiftRight<8 * (i % 4)>(places[i / 4]);
          const auto weight =
              CodeFloats<S, kBits, kField % kCodeFields>(fields[kField / kCodeFields], tables);
          Unroll<kRows>([&](auto r) GOSSAMER_STEP {
            const auto near = S::template RepeatFloats<kM>(totals.x[r] + kM * g);
            totals.template Add<i>(r, weight, S::LookupFloats(near, at));
          });
        });
      });
      Unroll<kRows>([&](auto r) GOSSAMER_STEP { totals.x[r] += kMapElements; });
    }
    totals.EndGroup(LoadScales<S>(k, tile, group));
  }
  totals.Write(p, tile, first_row);
}

using FloatTileFn = void (*)(const Product&, int64_t, int64_t, const float* const*);

// A kernel that unpacks in registers, or nullptr: then the tile is unpacked to bytes first.
template <class S, int kRows>
FloatTileFn FindFloatTile(const Product& p) {
  if constexpr (S::kLooksUpFloats) {
    const Packed& k = p.kernel;
    const Method method = p.method();
    if (method == Method::kPanel) return nullptr;
    if (method == Method::kBitmap) {
      return ForBitmaps<FloatTileFn>(k, [](auto codes, auto m) -> FloatTileFn {
        return FloatBitmapTile<S, kBitsOf<codes>, m, kRows>;
      });
    }
    return ForCodes<FloatTileFn>(k, [&](auto codes) -> FloatTileFn {
      constexpr int kBits = kBitsOf<decltype(codes)::value>;
      if (method == Method::kDense) {
        return k.zeros == nullptr ? FloatDenseTile<S, kBits, false, kRows>
                                  : FloatDenseTile<S, kBits, true, kRows>;
      }
      return ForPlaces<FloatTileFn>(k, [](auto place_bits, auto n) -> FloatTileFn {
        if constexpr (kBits < place_bits) return nullptr;  // which method() refuses
        else return FloatPlacesTile<S, kBits, place_bits, n, kRows>;
      });
    });
  }
  return nullptr;
}

}  // namespace
}  // namespace gossamer
