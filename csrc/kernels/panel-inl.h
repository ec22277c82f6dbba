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

// Multiplies kTiles panels by kRows rows; `sums` are [kRows][kTiles][16] floats.
template <class S, int kTiles, int kRows, bool kSmall>
void PanelBlock(const Product& p, int64_t tile, const uint8_t* panel, const Row* rows,
                float* sums) {
  using Sums = typename S::Sums;
  const Packed& k = p.kernel;
  const int64_t windows = PanelWindowsInGroup(k);
  const int64_t tile_bytes = PanelWindows(k) * kVectorBytes;
  const int8_t* x[kRows];
  Unroll<kRows>([&](auto r) GOSSAMER_STEP { x[r] = rows[r].codes(k); });
  for (int64_t group = 0; group < k.groups; ++group) {
    Sums part[kTiles][kRows];
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
      const Sums shift = GroupShift<S>(k, tile + t, group);
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
    AddGroup<S, kTiles, kRows>(k, tile, group, part, sums);
  }
}

template <class S, int kTiles, int kRows>
void PanelRows(const Product& p, int64_t tile, const uint8_t* panel, int64_t first_row,
               const Row* rows, float* sums) {
  if (p.kernel.byte_bits() == 8) {
    PanelBlock<S, kTiles, kRows, false>(p, tile, panel, rows, sums);
  } else {
    PanelBlock<S, kTiles, kRows, true>(p, tile, panel, rows, sums);
  }
  FinishBlock<S, kTiles, kRows>(p, first_row, tile, rows, sums);
}

// Unpacks kTiles tiles and multiplies them by every row.
template <class S, int kTiles>
void MultiplyPanel(const Product& p, const uint8_t* prepared, int64_t tile, uint8_t* scratch) {
  constexpr int kRows = S::kPanelRows;
  const int64_t tile_bytes = PanelWindows(p.kernel) * kVectorBytes;
  float* sums = reinterpret_cast<float*>(scratch + kTiles * tile_bytes);
  uint8_t* rest = scratch + kTiles * tile_bytes + kPanelSums;
  Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
    UnpackTile<S>(p.kernel, tile + t, scratch + t * tile_bytes, rest);
  });
  ForRows<kRows>(
      p, prepared,
      [&](int64_t r, const Row* rows) {
        PanelRows<S, kTiles, kRows>(p, tile, scratch, r, rows, sums);
      },
      [&](int64_t r, const Row* row) {
        PanelRows<S, kTiles, 1>(p, tile, scratch, r, row, sums);
      });
}

}  // namespace
}  // namespace gossamer
