// Quantized activations times tiles that are unpacked to bytes first.
#pragma once

#include <cstdint>

#include "packed.h"
#include "prepared.h"
#include "product.h"
#include "tile-inl.h"
#include "unpack-inl.h"

namespace gossamer {
namespace {

// What a group's sums start from: it takes the offset of the codes, and zero points, off again.
template <class S>
GOSSAMER_INLINE typename S::Sums GroupStart(const Packed& k, int64_t tile, int64_t group,
                                            int32_t sum) {
  if (k.zeros == nullptr) return S::FillSums(-Offset<S>(k.byte_bits()) * sum);
  return S::Multiply(GroupShift<S>(k, tile, group), S::FillSums(-sum));
}

// Multiplies kTiles panels by kRows rows.
template <class S, int kTiles, int kRows, bool kSmall>
void PanelBlock(const Product& p, int64_t tile, const uint8_t* panel, int64_t first_row,
                const Row* rows) {
  const Packed& k = p.kernel;
  const int64_t windows = PanelWindowsInGroup(k);
  const int64_t tile_bytes = PanelWindows(k) * kVectorBytes;
  const int8_t* x[kRows];
  Unroll<kRows>([&](auto r) GOSSAMER_STEP { x[r] = rows[r].codes(k); });
  BlockTotals<S, kTiles, kRows> totals;
  for (int64_t group = 0; group < k.groups; ++group) {
    typename S::Sums part[kTiles][kRows];
    Unroll<kTiles * kRows>([&](auto i) GOSSAMER_STEP {
      constexpr int kTile = i / kRows, kRow = i % kRows;
      part[kTile][kRow] = GroupStart<S>(k, tile + kTile, group, rows[kRow].sums()[group]);
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
    totals.AddGroup(k, tile, group, part);
  }
  totals.Write(p, tile, first_row, rows);
}

// Unpacks kTiles tiles and multiplies them by every row.
template <class S, int kTiles>
void MultiplyPanelTiles(const Product& p, const uint8_t* prepared, int64_t tile,
                        uint8_t* scratch) {
  const int64_t tile_bytes = PanelWindows(p.kernel) * kVectorBytes;
  uint8_t* rest = scratch + kTiles * tile_bytes;
  Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
    UnpackTile<S>(p.kernel, tile + t, scratch + t * tile_bytes, rest);
  });
  const bool small = p.kernel.byte_bits() < 8;
  ForRows<S::kByteRows>(p, prepared, [&](auto count, int64_t first_row, const Row* rows) {
    constexpr auto any = PanelBlock<S, kTiles, count, false>;
    constexpr auto few_bits = PanelBlock<S, kTiles, count, true>;
    (small ? few_bits : any)(p, tile, scratch, first_row, rows);
  });
}

template <class S>
void MultiplyPanel(const Product& p, const uint8_t* prepared, int64_t first, int64_t last,
                   uint8_t* scratch) {
  const auto one = [&](int64_t t) { MultiplyPanelTiles<S, 1>(p, prepared, t, scratch); };
  if (p.rows == 1) return ForTiles<1>(first, last, one, one);
  ForTiles<S::kByteTiles>(
      first, last,
      [&](int64_t t) { MultiplyPanelTiles<S, S::kByteTiles>(p, prepared, t, scratch); }, one);
}

}  // namespace
}  // namespace gossamer
