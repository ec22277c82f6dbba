// The products, written once on the vectors of `S` (simd_*.h); every target includes and compiles it.
#pragma once

#include <cstdint>

#include "packed.h"
#include "prepared.h"
#include "floats-inl.h"
#include "product.h"
#include "quantize-inl.h"
#include "tile-inl.h"
#include "unpack-inl.h"

namespace gossamer {
namespace {

// A prepared row.
struct Row {
  const uint8_t* at;

  float scale() const {
    float value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
  }
  const int32_t* sums() const { return reinterpret_cast<const int32_t*>(at + kRowHeader); }
  const int8_t* codes(const Packed& k) const {
    return reinterpret_cast<const int8_t*>(at + CodesOffset(k));
  }
};

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

template <class S, int kCount>
GOSSAMER_INLINE typename S::Sums AddAll(const typename S::Sums (&sums)[kCount]) {
  auto total = sums[0];
  for (int i = 1; i < kCount; ++i) total = S::Add(total, sums[i]);
  return total;
}

template <class S, int kBits>
constexpr int kPartialSums = S::kAnyByte ? 8 / kBits : 1;

// Dense codes of 8, 4 or 2 bits, groups of whole words. Words take turns at kTurns sums and several
// tiles may go at once, so that as many sums are on their way as products take to finish.
template <class S, int kBits, int kTiles, int kRows, int kTurns>
void DenseTile(const Product& p, int64_t tile, int64_t first_row, const Row* rows) {
  using Sums = typename S::Sums;
  constexpr int kWindows = 8 / kBits;  // of a word
  constexpr int kParts = kPartialSums<S, kBits>;
  const Packed& k = p.kernel;
  const int64_t words = k.group_size() / (4 * kWindows);  // of a group
  const uint8_t* word = k.values + tile * k.value_bytes;
  const int8_t* x[kRows];
  typename S::Floats y[kTiles][kRows];
  Unroll<kRows>([&](auto r) GOSSAMER_STEP {
    x[r] = rows[r].codes(k);
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP { y[t][r] = S::ZeroFloats(); });
  });
  for (int64_t group = 0; group < k.groups; ++group) {
    Sums sums[kTurns][kTiles][kRows][kParts];
    Unroll<kTurns>([&](auto u) GOSSAMER_STEP {
      Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
        Unroll<kRows>([&](auto r) GOSSAMER_STEP {
          Unroll<kParts>([&](auto i) GOSSAMER_STEP { sums[u][t][r][i] = S::Zero(); });
        });
      });
    });
    for (int64_t w = 0; w < words; w += kTurns, word += kTurns * kVectorBytes) {
      Unroll<kTurns>([&](auto u) GOSSAMER_STEP {
        typename S::Bytes fields[kTiles];
        Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
          fields[t] = LoadStream<S>(word + t * k.value_bytes + u * kVectorBytes);
        });
        Unroll<kWindows>([&](auto v) GOSSAMER_STEP {
          Unroll<kRows>([&](auto r) GOSSAMER_STEP {
            const auto four = S::Window(x[r] + 4 * (kWindows * u + v));
            Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
              Sums& sum = sums[u][t][r][v % kParts];
              sum = DotCodes<S, kBits>(sum, Codes<S, kBits, v>(fields[t]), four);
            });
          });
        });
      });
      Unroll<kRows>([&](auto r) GOSSAMER_STEP { x[r] += 4 * kWindows * kTurns; });
    }
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
      Unroll<kTurns - 1>([&](auto u) GOSSAMER_STEP {
        Unroll<kRows>([&](auto r) GOSSAMER_STEP {
          Unroll<kParts>([&](auto i) GOSSAMER_STEP {
            sums[0][t][r][i] = S::Add(sums[0][t][r][i], sums[u + 1][t][r][i]);
          });
        });
      });
      const auto scales = LoadScales<S>(k, tile + t, group);
      const Sums offset = GroupShift<S>(k, tile + t, group);
      Unroll<kRows>([&](auto r) GOSSAMER_STEP {
        const Sums shift = S::Multiply(offset, S::FillSums(rows[r].sums()[group]));
        const Sums total = S::Subtract(Combine<S, kBits>(sums[0][t][r]), shift);
        y[t][r] = S::AddFloats(y[t][r], S::MultiplyFloats(S::ToFloats(total), scales));
      });
    });
  }
  Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      Finish<S>(p, first_row + r, tile + t, rows[r].scale(), y[t][r]);
    });
  });
}

// The places of window `kWindow` of a word as indices into its table; see WriteTables.
template <class S, int kPlaceBits, int kN, int kWindow>
GOSSAMER_INLINE typename S::Bytes Places(typename S::Bytes word, typename S::Bytes high) {
  constexpr int kM = 1 << kPlaceBits;
  constexpr auto base = [](int step) {
    uint32_t word = 0;
    for (int j = 0; j < 4; ++j) word |= uint32_t(j / kN * step) << (8 * j);
    return word;
  };
  if constexpr (kPlaceBits == 2) {
    const auto half = kWindow < 2 ? word : high;
    if constexpr (kWindow % 2 == 0) return S::MaskOr(half, S::Fill(3), S::FillWord(base(4)));
    return S::MaskOr(half, S::Fill(12), S::FillWord(base(1)));
  } else {
    return S::MaskOr(S::template ShiftRight<kPlaceBits * kWindow>(word), S::Fill(kM - 1),
                     S::FillWord(base(kM)));
  }
}

// Kept codes of 8, 4 or 2 bits and their places, groups of whole words of places.
template <class S, int kBits, int kPlaceBits, int kN, int kTiles, int kRows>
void PlacesTile(const Product& p, int64_t tile, int64_t first_row, const Row* rows) {
  using Bytes = typename S::Bytes;
  using Sums = typename S::Sums;
  constexpr int kWindows = 8 / kPlaceBits;  // of a word of places
  constexpr int kCodeWindows = 8 / kBits;   // of a word of codes
  constexpr int kWords = kWindows / kCodeWindows;
  constexpr int kParts = kPartialSums<S, kBits>;
  constexpr int kShifts = 2;  // take turns, so that one does not wait for the last
  static_assert(kWindows % kCodeWindows == 0, "words of codes fill words of places");
  const Packed& k = p.kernel;
  const int64_t words = k.group_size() / k.m * k.n / (4 * kWindows);
  const uint8_t* word = k.values + tile * k.value_bytes;
  const uint8_t* place = k.indices + tile * k.index_bytes;
  const int8_t* x[kRows];
  typename S::Floats y[kTiles][kRows];
  Unroll<kRows>([&](auto r) GOSSAMER_STEP {
    x[r] = rows[r].codes(k);
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP { y[t][r] = S::ZeroFloats(); });
  });
  const Bytes offset = S::Fill(Offset<S>(kBits));
  for (int64_t group = 0; group < k.groups; ++group) {
    Sums sums[kTiles][kRows][kParts];
    Sums shift[kTiles][kRows][kShifts];
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
      Unroll<kRows>([&](auto r) GOSSAMER_STEP {
        Unroll<kParts>([&](auto i) GOSSAMER_STEP { sums[t][r][i] = S::Zero(); });
        Unroll<kShifts>([&](auto i) GOSSAMER_STEP { shift[t][r][i] = S::Zero(); });
      });
    });
    for (int64_t w = 0; w < words; ++w, place += kVectorBytes, word += kWords * kVectorBytes) {
      Bytes low[kTiles], high[kTiles], fields[kTiles][kWords];
      Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
        low[t] = LoadStream<S>(place + t * k.index_bytes);
        high[t] = S::template ShiftRight<4>(low[t]);
        Unroll<kWords>([&](auto i) GOSSAMER_STEP {
          fields[t][i] = LoadStream<S>(word + t * k.value_bytes + i * kVectorBytes);
        });
      });
      Unroll<kWindows>([&](auto v) GOSSAMER_STEP {
        Bytes index[kTiles], codes[kTiles];
        Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
          index[t] = Places<S, kPlaceBits, kN, v>(low[t], high[t]);
          codes[t] = Codes<S, kBits, v % kCodeWindows>(fields[t][v / kCodeWindows]);
        });
        Unroll<kRows>([&](auto r) GOSSAMER_STEP {
          const Bytes table = S::Table(x[r] + kTableBytes * v);
          Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
            const Bytes chosen = S::Lookup(table, index[t]);
            Sums& sum = sums[t][r][v % kParts];
            sum = DotCodes<S, kBits>(sum, codes[t], chosen);
            Sums& moved = shift[t][r][v % kShifts];
            moved = DotCodes<S, kBits>(moved, offset, chosen);
          });
        });
      });
      Unroll<kRows>([&](auto r) GOSSAMER_STEP { x[r] += kTableBytes * kWindows; });
    }
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
      const auto scales = LoadScales<S>(k, tile + t, group);
      Unroll<kRows>([&](auto r) GOSSAMER_STEP {
        const Sums total = S::Subtract(Combine<S, kBits>(sums[t][r]), AddAll<S>(shift[t][r]));
        y[t][r] = S::AddFloats(y[t][r], S::MultiplyFloats(S::ToFloats(total), scales));
      });
    });
  }
  Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      Finish<S>(p, first_row + r, tile + t, rows[r].scale(), y[t][r]);
    });
  });
}

using TileFn = void (*)(const Product&, int64_t, int64_t, const Row*);

template <class S, int kTiles, int kRows, int kTurns>
TileFn FindDenseOf(const Packed& k) {
  switch (k.bits) {
    case 8: return DenseTile<S, 8, kTiles, kRows, kTurns>;
    case 4: return DenseTile<S, 4, kTiles, kRows, kTurns>;
    default: return DenseTile<S, 2, kTiles, kRows, kTurns>;
  }
}

template <class S, int kTiles, int kRows>
TileFn FindDense(const Packed& k) {
  const int64_t words = k.group_size() * k.bits / 32;
  if (kRows == 1 && words % S::kDenseTurns == 0) {
    return FindDenseOf<S, kTiles, kRows, kRows == 1 ? S::kDenseTurns : 1>(k);
  }
  return FindDenseOf<S, kTiles, kRows, 1>(k);
}

template <class S, int kPlaceBits, int kN, int kTiles, int kRows>
TileFn FindPlacesOf(const Packed& k) {
  switch (k.bits) {
    case 8: return PlacesTile<S, 8, kPlaceBits, kN, kTiles, kRows>;
    case 4: return PlacesTile<S, 4, kPlaceBits, kN, kTiles, kRows>;
    default:
      if constexpr (kPlaceBits <= 2) return PlacesTile<S, 2, kPlaceBits, kN, kTiles, kRows>;
      return nullptr;
  }
}

// 1:2, 1:4, 2:4 and 4:16: tables of 16 activations hold what a window chooses from.
template <class S, int kTiles, int kRows>
TileFn FindPlaces(const Packed& k) {
  if (k.m == 2) return FindPlacesOf<S, 1, 1, kTiles, kRows>(k);
  if (k.m == 16) return FindPlacesOf<S, 4, 4, kTiles, kRows>(k);
  return k.n == 1 ? FindPlacesOf<S, 2, 1, kTiles, kRows>(k)
                  : FindPlacesOf<S, 2, 2, kTiles, kRows>(k);
}

// Tiles at once and rows at once: for one row as many tiles as registers hold.
template <class S>
struct FewTiles {
  int64_t tiles;
  TileFn one_row, four_rows;
};

template <class S>
FewTiles<S> FindTiles(const Product& p, bool several) {
  const Packed& k = p.kernel;
  if (p.method() == Method::kDense) {
    if (several) return {S::kDenseTiles, FindDense<S, S::kDenseTiles, 1>(k), nullptr};
    return {1, FindDense<S, 1, 1>(k), FindDense<S, 1, 4>(k)};
  }
  if (several) return {S::kPlacesTiles, FindPlaces<S, S::kPlacesTiles, 1>(k), nullptr};
  return {1, FindPlaces<S, 1, 1>(k), FindPlaces<S, 1, 4>(k)};
}

// Few rows: a tile's words are read once from memory, then again for every four rows from cache.
template <class S>
void MultiplyFew(const Product& p, const uint8_t* prepared, int64_t first, int64_t last) {
  const int64_t row_bytes = p.row_bytes();
  const auto single = FindTiles<S>(p, false), several = FindTiles<S>(p, true);
  Row rows[kFewRows];
  for (int64_t r = 0; r < p.rows; ++r) rows[r].at = prepared + r * row_bytes;
  int64_t tile = first;
  if (p.rows == 1) {
    for (; tile + several.tiles <= last; tile += several.tiles) several.one_row(p, tile, 0, rows);
  }
  for (; tile < last; ++tile) {
    int64_t r = 0;
    for (; r + 4 <= p.rows; r += 4) single.four_rows(p, tile, r, rows + r);
    for (; r < p.rows; ++r) single.one_row(p, tile, r, rows + r);
  }
}

// Multiplies kTiles panels by kRows rows and adds nothing: `sums` are [kRows][kTiles][16] floats.
template <class S, int kTiles, int kRows, bool kSmall>
void PanelBlock(const Product& p, int64_t tile, const uint8_t* panel, const Row* rows,
                float* sums) {
  using Sums = typename S::Sums;
  const Packed& k = p.kernel;
  const int64_t windows = PanelWindowsInGroup(k);
  const int64_t tile_bytes = PanelWindows(k) * kVectorBytes;
  const Sums offset = S::FillSums(Offset<S>(k.bits));
  const int8_t* x[kRows];
  Unroll<kRows>([&](auto r) GOSSAMER_STEP { x[r] = rows[r].codes(k); });
  for (int64_t group = 0; group < k.groups; ++group) {
    Sums part[kTiles][kRows];
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
      Sums shift = offset;
      if (k.zeros != nullptr) {
        shift = S::Add(shift, S::Widen(k.zeros + ((tile + t) * k.groups + group) * kLanes));
      }
      Unroll<kRows>([&](auto r) GOSSAMER_STEP {
        const Sums sum = S::FillSums(rows[r].sums()[group]);
        part[t][r] = S::Subtract(S::Zero(), S::Multiply(shift, sum));
      });
    });
    for (int64_t w = 0; w < windows; ++w, panel += kVectorBytes) {
      typename S::Bytes codes[kTiles];
      Unroll<kTiles>([&](auto t) GOSSAMER_STEP { codes[t] = S::Load(panel + t * tile_bytes); });
      Unroll<kRows>([&](auto r) GOSSAMER_STEP {
        const auto four = S::Window(x[r]);
        x[r] += 4;
        Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
          part[t][r] = kSmall ? S::DotSmall(part[t][r], codes[t], four)
                              : S::Dot(part[t][r], codes[t], four);
        });
      });
    }
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
      const auto scales = LoadScales<S>(k, tile + t, group);
      Unroll<kRows>([&](auto r) GOSSAMER_STEP {
        float* at = sums + (r * kTiles + t) * kLanes;
        const auto scaled = S::MultiplyFloats(S::ToFloats(part[t][r]), scales);
        S::StoreFloats(at, group == 0 ? S::AddFloats(S::ZeroFloats(), scaled)
                                      : S::AddFloats(S::LoadFloats(at), scaled));
      });
    });
  }
}

template <class S, int kTiles, int kRows>
void PanelRows(const Product& p, int64_t tile, const uint8_t* panel, int64_t first_row,
               const Row* rows, float* sums) {
  if (p.kernel.bits == 8) {
    PanelBlock<S, kTiles, kRows, false>(p, tile, panel, rows, sums);
  } else {
    PanelBlock<S, kTiles, kRows, true>(p, tile, panel, rows, sums);
  }
  Unroll<kRows>([&](auto r) GOSSAMER_STEP {
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
      Finish<S>(p, first_row + r, tile + t, rows[r].scale(),
                S::LoadFloats(sums + (r * kTiles + t) * kLanes));
    });
  });
}

template <class S, int kTiles>
void MultiplyPanel(const Product& p, const uint8_t* prepared, int64_t tile, uint8_t* scratch) {
  constexpr int kRows = S::kPanelRows;
  const int64_t tile_bytes = PanelWindows(p.kernel) * kVectorBytes;
  float* sums = reinterpret_cast<float*>(scratch + kTiles * tile_bytes);
  uint8_t* rest = scratch + kTiles * tile_bytes + kPanelSums;
  Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
    UnpackTile<S>(p.kernel, tile + t, scratch + t * tile_bytes, rest);
  });
  const int64_t row_bytes = p.row_bytes();
  Row rows[kRows];
  int64_t r = 0;
  for (; r + kRows <= p.rows; r += kRows) {
    Unroll<kRows>([&](auto i) GOSSAMER_STEP { rows[i].at = prepared + (r + i) * row_bytes; });
    PanelRows<S, kTiles, kRows>(p, tile, scratch, r, rows, sums);
  }
  for (; r < p.rows; ++r) {
    rows[0].at = prepared + r * row_bytes;
    PanelRows<S, kTiles, 1>(p, tile, scratch, r, rows, sums);
  }
}

template <class S>
void Multiply(const Product& p, const uint8_t* prepared, int64_t first, int64_t last,
              uint8_t* scratch) {
  if (p.floats()) {
    MultiplyFloats<S>(p, prepared, first, last, scratch);
    return;
  }
  if constexpr (S::kInRegisters) {
    if (p.method() != Method::kPanel) {
      MultiplyFew<S>(p, prepared, first, last);
      return;
    }
  }
  int64_t tile = first;
  if (p.rows > 1) {
    for (; tile + kPanelTiles <= last; tile += kPanelTiles) {
      MultiplyPanel<S, kPanelTiles>(p, prepared, tile, scratch);
    }
  }
  for (; tile < last; ++tile) MultiplyPanel<S, 1>(p, prepared, tile, scratch);
}

}  // namespace
}  // namespace gossamer
