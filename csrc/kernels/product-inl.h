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
  Unroll<kSums - 1>([&](auto i) __attribute__((always_inline)) {
    total = S::Add(total, S::ShiftSums(parts[i + 1], kBits * (i + 1)));
  });
  return total;
}

template <class S, int kBits>
constexpr int kPartialSums = S::kAnyByte ? 8 / kBits : 1;

// Dense codes of 8, 4 or 2 bits, groups of whole words.
template <class S, int kBits, int kRows>
void DenseTile(const Product& p, int64_t tile, int64_t first_row, const Row* rows) {
  using Sums = typename S::Sums;
  constexpr int kWindows = 8 / kBits;  // of a word
  constexpr int kParts = kPartialSums<S, kBits>;
  const Packed& k = p.kernel;
  const int64_t words = k.group_size() / (4 * kWindows);  // of a group
  const uint8_t* word = k.values + tile * k.value_bytes;
  const int8_t* x[kRows];
  typename S::Floats y[kRows];
  Unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    x[r] = rows[r].codes(k);
    y[r] = S::ZeroFloats();
  });
  for (int64_t group = 0; group < k.groups; ++group) {
    Sums sums[kRows][kParts];
    for (auto& row : sums) {
      for (auto& part : row) part = S::Zero();
    }
    for (int64_t w = 0; w < words; ++w, word += kVectorBytes) {
      const auto fields = S::Load(word);
      Unroll<kWindows>([&](auto v) __attribute__((always_inline)) {
        const auto codes = Codes<S, kBits, v>(fields);
        Unroll<kRows>([&](auto r) __attribute__((always_inline)) {
          Sums& sum = sums[r][v % kParts];
          sum = DotCodes<S, kBits>(sum, codes, S::Window(x[r] + 4 * v));
        });
      });
      Unroll<kRows>([&](auto r) __attribute__((always_inline)) { x[r] += 4 * kWindows; });
    }
    const auto scales = LoadScales<S>(k, tile, group);
    Sums offset = S::FillSums(Offset<S>(kBits));
    if (k.zeros != nullptr) {
      offset = S::Add(offset, S::Widen(k.zeros + (tile * k.groups + group) * kLanes));
    }
    Unroll<kRows>([&](auto r) __attribute__((always_inline)) {
      const Sums shift = S::Multiply(offset, S::FillSums(rows[r].sums()[group]));
      const Sums total = S::Subtract(Combine<S, kBits>(sums[r]), shift);
      y[r] = S::AddFloats(y[r], S::MultiplyFloats(S::ToFloats(total), scales));
    });
  }
  Unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    Finish<S>(p, first_row + r, tile, rows[r].scale(), y[r]);
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
template <class S, int kBits, int kPlaceBits, int kN, int kRows>
void PlacesTile(const Product& p, int64_t tile, int64_t first_row, const Row* rows) {
  using Bytes = typename S::Bytes;
  using Sums = typename S::Sums;
  constexpr int kWindows = 8 / kPlaceBits;     // of a word of places
  constexpr int kCodeWindows = 8 / kBits;      // of a word of codes
  constexpr int kParts = kPartialSums<S, kBits>;
  static_assert(kWindows % kCodeWindows == 0, "words of codes fill words of places");
  const Packed& k = p.kernel;
  const int64_t words = k.group_size() / k.m * k.n / (4 * kWindows);
  const uint8_t* word = k.values + tile * k.value_bytes;
  const uint8_t* place = k.indices + tile * k.index_bytes;
  const int8_t* x[kRows];
  typename S::Floats y[kRows];
  Unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    x[r] = rows[r].codes(k);
    y[r] = S::ZeroFloats();
  });
  const Bytes offset = S::Fill(Offset<S>(kBits));
  for (int64_t group = 0; group < k.groups; ++group) {
    Sums sums[kRows][kParts];
    Sums shift[kRows];
    for (int r = 0; r < kRows; ++r) {
      for (auto& part : sums[r]) part = S::Zero();
      shift[r] = S::Zero();
    }
    for (int64_t w = 0; w < words; ++w, place += kVectorBytes) {
      const Bytes low = S::Load(place);
      const Bytes high = S::template ShiftRight<4>(low);
      Bytes fields[kWindows / kCodeWindows];
      for (auto& field : fields) {
        field = S::Load(word);
        word += kVectorBytes;
      }
      Unroll<kWindows>([&](auto v) __attribute__((always_inline)) {
        const auto index = Places<S, kPlaceBits, kN, v>(low, high);
        const auto codes = Codes<S, kBits, v % kCodeWindows>(fields[v / kCodeWindows]);
        Unroll<kRows>([&](auto r) __attribute__((always_inline)) {
          const Bytes chosen = S::Lookup(S::Table(x[r] + kTableBytes * v), index);
          Sums& sum = sums[r][v % kParts];
          sum = DotCodes<S, kBits>(sum, codes, chosen);
          if constexpr (Offset<S>(kBits) != 0) {
            shift[r] = DotCodes<S, kBits>(shift[r], offset, chosen);
          }
        });
      });
      Unroll<kRows>(
          [&](auto r) __attribute__((always_inline)) { x[r] += kTableBytes * kWindows; });
    }
    const auto scales = LoadScales<S>(k, tile, group);
    Unroll<kRows>([&](auto r) __attribute__((always_inline)) {
      const Sums total = S::Subtract(Combine<S, kBits>(sums[r]), shift[r]);
      y[r] = S::AddFloats(y[r], S::MultiplyFloats(S::ToFloats(total), scales));
    });
  }
  Unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    Finish<S>(p, first_row + r, tile, rows[r].scale(), y[r]);
  });
}

using TileFn = void (*)(const Product&, int64_t, int64_t, const Row*);

template <class S, int kRows>
TileFn FindDense(const Packed& k) {
  switch (k.bits) {
    case 8: return DenseTile<S, 8, kRows>;
    case 4: return DenseTile<S, 4, kRows>;
    default: return DenseTile<S, 2, kRows>;
  }
}

template <class S, int kPlaceBits, int kN, int kRows>
TileFn FindPlacesOf(const Packed& k) {
  switch (k.bits) {
    case 8: return PlacesTile<S, 8, kPlaceBits, kN, kRows>;
    case 4: return PlacesTile<S, 4, kPlaceBits, kN, kRows>;
    default:
      if constexpr (kPlaceBits <= 2) return PlacesTile<S, 2, kPlaceBits, kN, kRows>;
      return nullptr;
  }
}

// 1:2, 1:4, 2:4 and 4:16: tables of 16 activations hold what a window chooses from.
template <class S, int kRows>
TileFn FindPlaces(const Packed& k) {
  if (k.m == 2) return FindPlacesOf<S, 1, 1, kRows>(k);
  if (k.m == 16) return FindPlacesOf<S, 4, 4, kRows>(k);
  return k.n == 1 ? FindPlacesOf<S, 2, 1, kRows>(k) : FindPlacesOf<S, 2, 2, kRows>(k);
}

template <class S, int kRows>
TileFn FindTile(const Product& p) {
  return p.method() == Method::kDense ? FindDense<S, kRows>(p.kernel)
                                      : FindPlaces<S, kRows>(p.kernel);
}

// Few rows: a tile's words are read once from memory, then again for every four rows from cache.
template <class S>
void MultiplyFew(const Product& p, const uint8_t* prepared, int64_t first, int64_t last) {
  const int64_t row_bytes = p.row_bytes();
  const TileFn four = FindTile<S, 4>(p), one = FindTile<S, 1>(p);
  Row rows[kFewRows];
  for (int64_t r = 0; r < p.rows; ++r) rows[r].at = prepared + r * row_bytes;
  for (int64_t tile = first; tile < last; ++tile) {
    int64_t r = 0;
    for (; r + 4 <= p.rows; r += 4) four(p, tile, r, rows + r);
    for (; r < p.rows; ++r) one(p, tile, r, rows + r);
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
  for (int r = 0; r < kRows; ++r) x[r] = rows[r].codes(k);
  for (int64_t group = 0; group < k.groups; ++group) {
    Sums part[kTiles][kRows];
    for (int t = 0; t < kTiles; ++t) {
      Sums shift = offset;
      if (k.zeros != nullptr) {
        shift = S::Add(shift, S::Widen(k.zeros + ((tile + t) * k.groups + group) * kLanes));
      }
      for (int r = 0; r < kRows; ++r) {
        const Sums sum = S::FillSums(rows[r].sums()[group]);
        part[t][r] = S::Subtract(S::Zero(), S::Multiply(shift, sum));
      }
    }
    for (int64_t w = 0; w < windows; ++w, panel += kVectorBytes) {
      typename S::Bytes codes[kTiles];
      for (int t = 0; t < kTiles; ++t) codes[t] = S::Load(panel + t * tile_bytes);
      Unroll<kRows>([&](auto r) __attribute__((always_inline)) {
        const auto four = S::Window(x[r]);
        x[r] += 4;
        for (int t = 0; t < kTiles; ++t) {
          part[t][r] = kSmall ? S::DotSmall(part[t][r], codes[t], four)
                              : S::Dot(part[t][r], codes[t], four);
        }
      });
    }
    for (int t = 0; t < kTiles; ++t) {
      const auto scales = LoadScales<S>(k, tile + t, group);
      for (int r = 0; r < kRows; ++r) {
        float* at = sums + (r * kTiles + t) * kLanes;
        const auto scaled = S::MultiplyFloats(S::ToFloats(part[t][r]), scales);
        S::StoreFloats(at, group == 0 ? S::AddFloats(S::ZeroFloats(), scaled)
                                      : S::AddFloats(S::LoadFloats(at), scaled));
      }
    }
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
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTiles; ++t) {
      Finish<S>(p, first_row + r, tile + t, rows[r].scale(),
                S::LoadFloats(sums + (r * kTiles + t) * kLanes));
    }
  }
}

template <class S, int kTiles>
void MultiplyPanel(const Product& p, const uint8_t* prepared, int64_t tile, uint8_t* scratch) {
  constexpr int kRows = S::kPanelRows;
  const int64_t tile_bytes = PanelWindows(p.kernel) * kVectorBytes;
  float* sums = reinterpret_cast<float*>(scratch + kTiles * tile_bytes);
  uint8_t* rest = scratch + kTiles * tile_bytes + kPanelSums;
  for (int t = 0; t < kTiles; ++t) {
    UnpackTile<S>(p.kernel, tile + t, scratch + t * tile_bytes, rest);
  }
  const int64_t row_bytes = p.row_bytes();
  Row rows[kRows];
  int64_t r = 0;
  for (; r + kRows <= p.rows; r += kRows) {
    for (int i = 0; i < kRows; ++i) rows[i].at = prepared + (r + i) * row_bytes;
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
  if (p.method() != Method::kPanel) {
    MultiplyFew<S>(p, prepared, first, last);
    return;
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
