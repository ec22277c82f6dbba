// Products with activations left floats: the kernel's codes become floats on the way.
#pragma once

#include <cstdint>

#include "packed.h"
#include "prepared.h"
#include "product.h"
#include "tile-inl.h"
#include "unpack-inl.h"

namespace gossamer {
namespace {

template <class S, int kByte>
GOSSAMER_INLINE typename S::Floats ByteToFloats(typename S::Bytes window, typename S::Sums shift) {
  return S::ToFloats(S::Subtract(S::template ByteOfLane<kByte>(window), shift));
}

// A few rows times a tile unpacked to bytes: a group's sum first, then its scale.
template <class S, int kRows>
void FloatRows(const Product& p, int64_t tile, const uint8_t* panel, int64_t first_row,
               const float* const* rows) {
  const Packed& k = p.kernel;
  const int64_t windows = PanelWindowsInGroup(k);
  const float* x[kRows];
  typename S::Floats y[kRows];
  Unroll<kRows>([&](auto r) GOSSAMER_STEP {
    x[r] = rows[r];
    y[r] = S::ZeroFloats();
  });
  for (int64_t group = 0; group < k.groups; ++group) {
    const auto shift = GroupShift<S>(k, tile, group);
    typename S::Floats sums[kRows];
    Unroll<kRows>([&](auto r) GOSSAMER_STEP { sums[r] = S::ZeroFloats(); });
    for (int64_t w = 0; w < windows; ++w, panel += kVectorBytes) {
      const auto window = S::Load(panel);
      Unroll<4>([&](auto j) GOSSAMER_STEP {
        const auto weight = ByteToFloats<S, j>(window, shift);
        Unroll<kRows>([&](auto r) GOSSAMER_STEP {
          sums[r] = S::FusedAdd(sums[r], weight, S::FillFloats(x[r][j]));
        });
      });
      Unroll<kRows>([&](auto r) GOSSAMER_STEP { x[r] += 4; });
    }
    const auto scales = LoadScales<S>(k, tile, group);
    Unroll<kRows>([&](auto r) GOSSAMER_STEP { y[r] = S::FusedAdd(y[r], sums[r], scales); });
  }
  Unroll<kRows>([&](auto r) GOSSAMER_STEP { Finish<S>(p, first_row + r, tile, 1.0f, y[r]); });
}

// Windows [first, last) of a tile's bytes as scaled floats, 16 lanes for each element.
template <class S>
void ToFloatPanel(const Packed& k, int64_t tile, const uint8_t* panel, int64_t first, int64_t last,
                  float* floats) {
  const int64_t windows = PanelWindowsInGroup(k);
  for (int64_t w = first; w < last;) {
    const int64_t group = w / windows;
    const int64_t end = (group + 1) * windows < last ? (group + 1) * windows : last;
    const auto shift = GroupShift<S>(k, tile, group);
    const auto scales = LoadScales<S>(k, tile, group);
    for (; w < end; ++w, floats += 4 * kLanes) {
      const auto window = S::Load(panel + w * kVectorBytes);
      Unroll<4>([&](auto j) GOSSAMER_STEP {
        S::StoreFloats(floats + j * kLanes,
                       S::MultiplyFloats(ByteToFloats<S, j>(window, shift), scales));
      });
    }
  }
}

// Adds kRows rows times kTiles panels of floats, `size` elements each, to `sums` [row][tile][16].
template <class S, int kTiles, int kRows>
void FloatBlock(const float* floats, int64_t size, const float* const* x, bool first,
                float* sums) {
  typename S::Floats y[kTiles][kRows];
  Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      y[t][r] = first ? S::ZeroFloats() : S::LoadFloats(sums + (r * kTiles + t) * kLanes);
    });
  });
  for (int64_t i = 0; i < size; ++i) {
    typename S::Floats weights[kTiles];
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
      weights[t] = S::LoadFloats(floats + (t * kFloatWindows * 4 + i) * kLanes);
    });
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      const auto value = S::FillFloats(x[r][i]);
      Unroll<kTiles>([&](auto t) GOSSAMER_STEP { y[t][r] = S::FusedAdd(y[t][r], weights[t], value); });
    });
  }
  Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      S::StoreFloats(sums + (r * kTiles + t) * kLanes, y[t][r]);
    });
  });
}

// Many rows: panels of floats, a piece of the reduction axis at a time.
template <class S, int kTiles>
void FloatPanel(const Product& p, const uint8_t* prepared, int64_t tile, uint8_t* scratch) {
  constexpr int kRows = S::kPanelRows;
  const Packed& k = p.kernel;
  const int64_t windows = PanelWindows(k), row_bytes = p.row_bytes();
  const int64_t panel_bytes = windows * kVectorBytes;
  uint8_t* at = scratch + kTiles * panel_bytes;
  float* floats = reinterpret_cast<float*>(at);
  float* sums = floats + kTiles * kFloatWindows * 4 * kLanes;
  uint8_t* rest = reinterpret_cast<uint8_t*>(sums + p.rows * kTiles * kLanes);
  Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
    UnpackTile<S>(k, tile + t, scratch + t * panel_bytes, rest);
  });
  for (int64_t w = 0; w < windows; w += kFloatWindows) {
    const int64_t last = w + kFloatWindows < windows ? w + kFloatWindows : windows;
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
      ToFloatPanel<S>(k, tile + t, scratch + t * panel_bytes, w, last,
                      floats + t * kFloatWindows * 4 * kLanes);
    });
    const float* x[kRows];
    const int64_t size = (last - w) * 4;
    int64_t r = 0;
    for (; r + kRows <= p.rows; r += kRows) {
      Unroll<kRows>([&](auto i) GOSSAMER_STEP {
        x[i] = reinterpret_cast<const float*>(prepared + (r + i) * row_bytes) + w * 4;
      });
      FloatBlock<S, kTiles, kRows>(floats, size, x, w == 0, sums + r * kTiles * kLanes);
    }
    for (; r < p.rows; ++r) {
      x[0] = reinterpret_cast<const float*>(prepared + r * row_bytes) + w * 4;
      FloatBlock<S, kTiles, 1>(floats, size, x, w == 0, sums + r * kTiles * kLanes);
    }
  }
  for (int64_t r = 0; r < p.rows; ++r) {
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
      Finish<S>(p, r, tile + t, 1.0f, S::LoadFloats(sums + (r * kTiles + t) * kLanes));
    });
  }
}

// Where an instruction looks up sixteen floats, words of codes become floats in registers.

template <int kBits>
GOSSAMER_INLINE void FillCodeTable(float* table) {
  Unroll<kLanes>([&](auto i) GOSSAMER_STEP {
    const int field = i & ((1 << kBits) - 1);
    table[i] = static_cast<float>((field ^ 1 << (kBits - 1)) - (1 << (kBits - 1)));
  });
}

// Bits at which field `kField` of a word stands.
template <int kBits>
constexpr int FieldShift(int field) {
  return 8 * (field % 4) + kBits * (field / 4);
}

template <class S, int kBits, int kField>
GOSSAMER_INLINE typename S::Floats CodeFloats(typename S::Bytes word, typename S::Floats table) {
  constexpr int kShift = FieldShift<kBits>(kField);
  if constexpr (kBits == 8) return S::ToFloats(S::template SignedByteAt<kShift>(word));
  return S::LookupFloats(table, S::template ShiftRight<kShift>(word));
}

// Sums that take turns, so that one does not wait for the last.
template <int kRows>
constexpr int kTurns = kRows == 1 ? 4 : 2;

template <class S, int kCount>
GOSSAMER_INLINE typename S::Floats AddUp(const typename S::Floats (&sums)[kCount]) {
  auto total = sums[0];
  for (int i = 1; i < kCount; ++i) total = S::AddFloats(total, sums[i]);
  return total;
}

template <class S, int kBits, int kRows>
void FloatDenseTile(const Product& p, int64_t tile, int64_t first_row, const float* const* rows) {
  using Floats = typename S::Floats;
  constexpr int kFields = 32 / kBits;
  const Packed& k = p.kernel;
  const int64_t words = k.group_size() / kFields;
  const uint8_t* word = k.values + tile * k.value_bytes;
  float codes[kLanes];
  FillCodeTable<kBits == 8 ? 2 : kBits>(codes);
  const Floats table = S::LoadFloats(codes);
  const float* x[kRows];
  Floats y[kRows];
  Unroll<kRows>([&](auto r) GOSSAMER_STEP {
    x[r] = rows[r];
    y[r] = S::ZeroFloats();
  });
  for (int64_t group = 0; group < k.groups; ++group) {
    Floats sums[kRows][kTurns<kRows>];
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      Unroll<kTurns<kRows>>([&](auto i) GOSSAMER_STEP { sums[r][i] = S::ZeroFloats(); });
    });
    for (int64_t w = 0; w < words; ++w, word += kVectorBytes) {
      const auto fields = LoadStream<S>(word);
      Unroll<kFields>([&](auto f) GOSSAMER_STEP {
        const Floats weight = CodeFloats<S, kBits, f>(fields, table);
        Unroll<kRows>([&](auto r) GOSSAMER_STEP {
          Floats& sum = sums[r][f % kTurns<kRows>];
          sum = S::FusedAdd(sum, weight, S::FillFloats(x[r][f]));
        });
      });
      Unroll<kRows>([&](auto r) GOSSAMER_STEP { x[r] += kFields; });
    }
    const Floats scales = LoadScales<S>(k, tile, group);
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      y[r] = S::FusedAdd(y[r], AddUp<S>(sums[r]), scales);
    });
  }
  Unroll<kRows>([&](auto r) GOSSAMER_STEP { Finish<S>(p, first_row + r, tile, 1.0f, y[r]); });
}

template <class S, int kBits, int kPlaceBits, int kN, int kRows>
void FloatPlacesTile(const Product& p, int64_t tile, int64_t first_row, const float* const* rows) {
  using Floats = typename S::Floats;
  constexpr int kM = 1 << kPlaceBits;
  constexpr int kFields = 32 / kPlaceBits, kCodeFields = 32 / kBits;
  static_assert(kFields % kCodeFields == 0, "words of codes fill words of places");
  const Packed& k = p.kernel;
  const int64_t words = k.group_size() / k.m * k.n / kFields;
  const uint8_t* word = k.values + tile * k.value_bytes;
  const uint8_t* place = k.indices + tile * k.index_bytes;
  float codes[kLanes];
  FillCodeTable<kBits == 8 ? 2 : kBits>(codes);
  const Floats table = S::LoadFloats(codes);
  const float* x[kRows];
  Floats y[kRows];
  Unroll<kRows>([&](auto r) GOSSAMER_STEP {
    x[r] = rows[r];
    y[r] = S::ZeroFloats();
  });
  for (int64_t group = 0; group < k.groups; ++group) {
    Floats sums[kRows][kTurns<kRows>];
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      Unroll<kTurns<kRows>>([&](auto i) GOSSAMER_STEP { sums[r][i] = S::ZeroFloats(); });
    });
    for (int64_t w = 0; w < words; ++w, place += kVectorBytes) {
      const auto places = LoadStream<S>(place);
      typename S::Bytes fields[kFields / kCodeFields];
      for (auto& field : fields) {
        field = LoadStream<S>(word);
        word += kVectorBytes;
      }
      Unroll<kFields>([&](auto f) GOSSAMER_STEP {
        const auto at = S::template ShiftRight<FieldShift<kPlaceBits>(f)>(places);
        const Floats weight = CodeFloats<S, kBits, f % kCodeFields>(fields[f / kCodeFields], table);
        Unroll<kRows>([&](auto r) GOSSAMER_STEP {
          const Floats near = S::template RepeatFloats<kM>(x[r] + f / kN * kM);
          Floats& sum = sums[r][f % kTurns<kRows>];
          sum = S::FusedAdd(sum, weight, S::LookupFloats(near, at));
        });
      });
      Unroll<kRows>([&](auto r) GOSSAMER_STEP { x[r] += kFields / kN * kM; });
    }
    const Floats scales = LoadScales<S>(k, tile, group);
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      y[r] = S::FusedAdd(y[r], AddUp<S>(sums[r]), scales);
    });
  }
  Unroll<kRows>([&](auto r) GOSSAMER_STEP { Finish<S>(p, first_row + r, tile, 1.0f, y[r]); });
}

using FloatTileFn = void (*)(const Product&, int64_t, int64_t, const float* const*);

template <class S, int kPlaceBits, int kN, int kRows>
FloatTileFn FindFloatPlaces(const Packed& k) {
  if (k.bits == 8) return FloatPlacesTile<S, 8, kPlaceBits, kN, kRows>;
  if (k.bits == 4) return FloatPlacesTile<S, 4, kPlaceBits, kN, kRows>;
  if constexpr (kPlaceBits <= 2) return FloatPlacesTile<S, 2, kPlaceBits, kN, kRows>;
  return nullptr;
}

// A kernel that unpacks in registers, or nullptr: then the tile is unpacked to bytes first.
template <class S, int kRows>
FloatTileFn FindFloatTile(const Product& p) {
  if constexpr (S::kLooksUpFloats) {
    const Packed& k = p.kernel;
    const Method method = p.method();
    if (method == Method::kDense && k.zeros == nullptr) {
      if (k.bits == 8) return FloatDenseTile<S, 8, kRows>;
      return k.bits == 4 ? FloatDenseTile<S, 4, kRows> : FloatDenseTile<S, 2, kRows>;
    }
    if (method == Method::kPlaces) {
      if (k.m == 2) return FindFloatPlaces<S, 1, 1, kRows>(k);
      if (k.m == 16) return FindFloatPlaces<S, 4, 4, kRows>(k);
      return k.n == 1 ? FindFloatPlaces<S, 2, 1, kRows>(k) : FindFloatPlaces<S, 2, 2, kRows>(k);
    }
  }
  return nullptr;
}

template <class S>
void FloatFew(const Product& p, const uint8_t* prepared, int64_t tile, uint8_t* scratch) {
  const int64_t row_bytes = p.row_bytes();
  const float* rows[kFewRows];
  for (int64_t r = 0; r < p.rows; ++r) {
    rows[r] = reinterpret_cast<const float*>(prepared + r * row_bytes);
  }
  const FloatTileFn four = FindFloatTile<S, 4>(p), one = FindFloatTile<S, 1>(p);
  int64_t r = 0;
  if (one != nullptr) {
    for (; r + 4 <= p.rows; r += 4) four(p, tile, r, rows + r);
    for (; r < p.rows; ++r) one(p, tile, r, rows + r);
    return;
  }
  UnpackTile<S>(p.kernel, tile, scratch, scratch + PanelWindows(p.kernel) * kVectorBytes);
  for (; r + 4 <= p.rows; r += 4) FloatRows<S, 4>(p, tile, scratch, r, rows + r);
  for (; r < p.rows; ++r) FloatRows<S, 1>(p, tile, scratch, r, rows + r);
}

template <class S>
void MultiplyFloats(const Product& p, const uint8_t* prepared, int64_t first, int64_t last,
                    uint8_t* scratch) {
  int64_t tile = first;
  if (p.rows <= kFewRows) {
    for (; tile < last; ++tile) FloatFew<S>(p, prepared, tile, scratch);
    return;
  }
  for (; tile + kPanelTiles <= last; tile += kPanelTiles) {
    FloatPanel<S, kPanelTiles>(p, prepared, tile, scratch);
  }
  for (; tile < last; ++tile) FloatPanel<S, 1>(p, prepared, tile, scratch);
}

}  // namespace
}  // namespace gossamer
