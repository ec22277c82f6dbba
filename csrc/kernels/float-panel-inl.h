// Activations left floats times tiles that are unpacked to bytes first.
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
      Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
        y[t][r] = S::FusedAdd(y[t][r], weights[t], value);
      });
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
void FloatPanelTiles(const Product& p, const uint8_t* prepared, int64_t tile, uint8_t* scratch) {
  constexpr int kRows = S::kFloatRows;
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

template <class S>
void FloatPanel(const Product& p, const uint8_t* prepared, int64_t first, int64_t last,
                uint8_t* scratch) {
  ForTiles<S::kFloatTiles>(
      first, last,
      [&](int64_t t) { FloatPanelTiles<S, S::kFloatTiles>(p, prepared, t, scratch); },
      [&](int64_t t) { FloatPanelTiles<S, 1>(p, prepared, t, scratch); });
}

}  // namespace
}  // namespace gossamer
