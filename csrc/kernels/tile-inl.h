// What every product does with a tile: reads its scales, writes its outputs.
#pragma once

#include <cstdint>
#include <utility>

#include "packed.h"
#include "prepared.h"
#include "product.h"
#include "scalars.h"
#include "unpack-inl.h"

namespace gossamer {
namespace {

// Calls step(0), ..., step(kCount - 1) with constants, so that shifts and masks are immediate.
template <class Step, int... kIndex>
GOSSAMER_INLINE void UnrollList([[maybe_unused]] Step step, std::integer_sequence<int, kIndex...>) {
  (step(std::integral_constant<int, kIndex>{}), ...);
}
template <int kCount, class Step>
GOSSAMER_INLINE void Unroll(Step step) {
  UnrollList(step, std::make_integer_sequence<int, kCount>{});
}

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

// Codes of 4 bits that are looked up in a codebook, where others are known by their bits.
constexpr int kBookCodes = 16 + 4;
template <int kCodes>
constexpr int kBitsOf = kCodes % 16;

// Gives pick(codes) of a kernel's codes of 8, 4 or 2 bits.
template <class Result, class Pick>
Result ForCodes(const Packed& k, Pick pick) {
  if (k.book != nullptr) return pick(Constant<kBookCodes>{});
  if (k.bits == 8) return pick(Constant<8>{});
  return k.bits == 4 ? pick(Constant<4>{}) : pick(Constant<2>{});
}

// Gives pick(place bits, n) of 1:2, 1:4, 2:4 and 4:16: those whose windows of four kept codes
// choose from sixteen activations or fewer.
template <class Result, class Pick>
Result ForPlaces(const Packed& k, Pick pick) {
  if (k.m == 2) return pick(Constant<1>{}, Constant<1>{});
  if (k.m == 16) return pick(Constant<4>{}, Constant<4>{});
  return k.n == 1 ? pick(Constant<2>{}, Constant<1>{}) : pick(Constant<2>{}, Constant<2>{});
}

// Gives pick(codes, m) of 4:8 and 8:16 with codes of 8 or 4 bits, which Method::kBitmap covers.
template <class Result, class Pick>
Result ForBitmaps(const Packed& k, Pick pick) {
  if (k.book != nullptr) {
    return k.m == 8 ? pick(Constant<kBookCodes>{}, Constant<8>{})
                    : pick(Constant<kBookCodes>{}, Constant<16>{});
  }
  if (k.m == 8) return k.bits == 8 ? pick(Constant<8>{}, Constant<8>{})
                                   : pick(Constant<4>{}, Constant<8>{});
  return k.bits == 8 ? pick(Constant<8>{}, Constant<16>{}) : pick(Constant<4>{}, Constant<16>{});
}

// All rows, four at a time and then one.
template <class Four, class One>
GOSSAMER_INLINE void ByFours(int64_t rows, Four four, One one) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) four(r);
  for (; r < rows; ++r) one(r);
}

// The scales of a group of a tile.
template <class S>
GOSSAMER_INLINE typename S::Floats LoadScales(const Packed& k, int64_t tile, int64_t group) {
  const int64_t at = (tile * k.groups + group) * kLanes;
  if (k.scale_type == ScaleType::kBfloat16) {
    return S::LoadBfloat16(static_cast<const uint16_t*>(k.scales) + at);
  }
  if (k.scale_type == ScaleType::kFloat32) {
    return S::LoadFloats(static_cast<const float*>(k.scales) + at);
  }
  const uint8_t* stored = static_cast<const uint8_t*>(k.scales) + at;
  float scales[kLanes];
  for (int i = 0; i < kLanes; ++i) scales[i] = ByteScale(stored[i], k.scale_type);
  return S::LoadFloats(scales);
}

// What is taken off the bytes of a group: the offset, and zero points where there are any.
template <class S>
GOSSAMER_INLINE typename S::Sums GroupShift(const Packed& k, int64_t tile, int64_t group) {
  const auto offset = S::FillSums(Offset<S>(k.byte_bits()));
  if (k.zeros == nullptr) return offset;
  return S::Add(offset, S::Widen(k.zeros + (tile * k.groups + group) * kLanes));
}

// Bytes ahead of what is read. Tried on one core of a Zen 4 and matrices in memory, dense and 1:4:
// 0, 34 and 26 GB/s of 34; 512, 34 and 29; 1024, 30 and 26; 2048, 30 and 29; 4096, 34 and 32.
constexpr int64_t kAhead = 4096;

// Reads a vector of weights, and asks for what comes later: processors prefetch too little by
// themselves to keep a core's share of the memory busy.
template <class S>
GOSSAMER_INLINE typename S::Bytes LoadStream(const uint8_t* from) {
  __builtin_prefetch(from + kAhead);
  return S::LoadOnce(from);
}

// Reads vectors that lie side by side.
template <class S, int kWords>
GOSSAMER_INLINE void LoadWords(const uint8_t* from, typename S::Bytes (&words)[kWords]) {
  Unroll<kWords>([&](auto i) GOSSAMER_STEP { words[i] = LoadStream<S>(from + i * kVectorBytes); });
}

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

// Adds a group's sums, scaled: one rounded product and one rounded sum, on every target.
template <class S>
GOSSAMER_INLINE void AddScaled(typename S::Floats& total, typename S::Sums sums,
                               typename S::Floats scales) {
  total = S::AddFloats(total, S::MultiplyFloats(S::ToFloats(sums), scales));
}

// Writes the lanes of a tile that are outputs.
inline void StoreTile(const Product& p, int64_t row, int64_t tile, const float* values) {
  const Packed& k = p.kernel;
  const int64_t first = tile * kLanes;
  const int64_t count = k.out - first < kLanes ? k.out - first : kLanes;
  const int64_t at = row * k.out + first;
  if (p.real != Real::kBfloat16) {
    __builtin_memcpy(static_cast<float*>(p.y) + at, values, count * sizeof(float));
    return;
  }
  uint16_t* y = static_cast<uint16_t*>(p.y) + at;
  for (int64_t i = 0; i < count; ++i) y[i] = ToBfloat16(values[i]);
}

template <class S>
GOSSAMER_INLINE void Finish(const Product& p, int64_t row, int64_t tile, float scale,
                            typename S::Floats sums) {
  const Packed& k = p.kernel;
  const auto y = S::MultiplyFloats(sums, S::FillFloats(scale));
  if (p.real != Real::kBfloat16 && (tile + 1) * kLanes <= k.out) {
    S::StoreFloats(static_cast<float*>(p.y) + row * k.out + tile * kLanes, y);
    return;
  }
  float values[kLanes];
  S::StoreFloats(values, y);
  StoreTile(p, row, tile, values);
}

// Rows on their way through a tile: where their codes are read, and what they add up to.
template <class S, int kRows>
struct RowTotals {
  const int8_t* x[kRows];
  typename S::Floats y[kRows];

  GOSSAMER_INLINE RowTotals(const Packed& k, const Row* rows) {
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      x[r] = rows[r].codes(k);
      y[r] = S::ZeroFloats();
    });
  }
  GOSSAMER_INLINE void Skip(int64_t codes) {
    Unroll<kRows>([&](auto r) GOSSAMER_STEP { x[r] += codes; });
  }
  GOSSAMER_INLINE void Write(const Product& p, int64_t tile, int64_t first_row, const Row* rows) {
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      Finish<S>(p, first_row + r, tile, rows[r].scale(), y[r]);
    });
  }
};

// What kRows rows times kTiles tiles add up to: in registers where a target has enough of them.
template <class S, int kTiles, int kRows>
struct BlockTotals {
  typename S::Floats y[kTiles][kRows];

  GOSSAMER_INLINE BlockTotals() {
    Unroll<kTiles * kRows>([&](auto i) GOSSAMER_STEP {
      y[i / kRows][i % kRows] = S::ZeroFloats();
    });
  }
  GOSSAMER_INLINE void AddGroup(const Packed& k, int64_t tile, int64_t group,
                                const typename S::Sums (&part)[kTiles][kRows]) {
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
      const auto scales = LoadScales<S>(k, tile + t, group);
      Unroll<kRows>([&](auto r) GOSSAMER_STEP { AddScaled<S>(y[t][r], part[t][r], scales); });
    });
  }
  GOSSAMER_INLINE void Write(const Product& p, int64_t tile, int64_t first_row, const Row* rows) {
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
        Finish<S>(p, first_row + r, tile + t, rows[r].scale(), y[t][r]);
      });
    });
  }
};

// Calls block(Constant, first row, rows) for kRows rows at a time, and for what is left by twos.
template <int kRows, class Block>
GOSSAMER_INLINE void ForRows(const Product& p, const uint8_t* prepared, Block block,
                             int64_t first = 0) {
  const int64_t row_bytes = p.row_bytes();
  Row rows[kRows];
  for (; first + kRows <= p.rows; first += kRows) {
    Unroll<kRows>([&](auto i) GOSSAMER_STEP { rows[i].at = prepared + (first + i) * row_bytes; });
    block(Constant<kRows>{}, first, rows);
  }
  if constexpr (kRows > 1) ForRows<(kRows > 2 ? kRows - 2 : 1)>(p, prepared, block, first);
}

// All tiles of a range, kTiles at a time and then one: some(tile), one(tile).
template <int kTiles, class Some, class One>
GOSSAMER_INLINE void ForTiles(int64_t first, int64_t last, Some some, One one) {
  for (; first + kTiles <= last; first += kTiles) some(first);
  for (; first < last; ++first) one(first);
}

}  // namespace
}  // namespace gossamer
