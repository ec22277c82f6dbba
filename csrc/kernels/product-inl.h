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
  if (p.floats()) {
    const auto multiply = p.rows > kFewRows ? FloatPanel<S> : FloatFew<S>;
    return multiply(p, prepared, first, last, scratch);
  }
  if constexpr (S::kInRegisters) {
    if (p.method() == Method::kKept) return MultiplyKept<S>(p, prepared, first, last, scratch);
    if (p.method() != Method::kPanel) return MultiplyInRegisters<S>(p, prepared, first, last);
  }
  MultiplyPanel<S>(p, prepared, first, last, scratch);
}

}  // namespace
}  // namespace gossamer
