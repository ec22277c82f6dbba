// The products, written once on the vectors of `S` (simd_*.h); every target compiles them.
#pragma once

#include <cstdint>

#include "float-panel-inl.h"
#include "float-registers-inl.h"
#include "kept-panel-inl.h"
#include "panel-inl.h"
#include "product.h"
#include "quantize-inl.h"
#include "registers-inl.h"

namespace gossamer {
namespace {

template <class S>
void FloatFew(const Product& p, const uint8_t* prepared, int64_t first, int64_t last,
              uint8_t* scratch) {
  const float* rows[kFewRows];
  for (int64_t r = 0; r < p.rows; ++r) {
    rows[r] = reinterpret_cast<const float*>(prepared + r * p.row_bytes());
  }
  const FloatTileFn four = FindFloatTile<S, 4>(p), one = FindFloatTile<S, 1>(p);
  for (int64_t tile = first; tile < last; ++tile) {
    if (one != nullptr) {
      ByFours(p.rows, [&](int64_t r) { four(p, tile, r, rows + r); },
              [&](int64_t r) { one(p, tile, r, rows + r); });
      continue;
    }
    UnpackTile<S>(p.kernel, tile, scratch, scratch + PanelWindows(p.kernel) * kVectorBytes);
    ByFours(p.rows, [&](int64_t r) { FloatRows<S, 4>(p, tile, scratch, r, rows + r); },
            [&](int64_t r) { FloatRows<S, 1>(p, tile, scratch, r, rows + r); });
  }
}

template <class S>
void Multiply(const Product& p, const uint8_t* prepared, int64_t first, int64_t last,
              uint8_t* scratch) {
  if (p.floats() && p.rows <= kFewRows) return FloatFew<S>(p, prepared, first, last, scratch);
  if constexpr (S::kInRegisters) {
    if (!p.floats() && p.method() == Method::kKept) {
      return MultiplyKept<S>(p, prepared, first, last, scratch);
    }
    if (!p.floats() && p.method() != Method::kPanel) {
      return MultiplyInRegisters<S>(p, prepared, first, last);
    }
  }
  const auto four = p.floats() ? FloatPanel<S, kPanelTiles> : MultiplyPanel<S, kPanelTiles>;
  const auto one = p.floats() ? FloatPanel<S, 1> : MultiplyPanel<S, 1>;
  int64_t tile = first;
  if (p.panel_tiles() == kPanelTiles) {
    for (; tile + kPanelTiles <= last; tile += kPanelTiles) four(p, prepared, tile, scratch);
  }
  for (; tile < last; ++tile) one(p, prepared, tile, scratch);
}

}  // namespace
}  // namespace gossamer
