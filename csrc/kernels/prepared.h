// How a quantized row of activations lies in memory, shared by what writes and what reads it.
#pragma once

#include <cstdint>

#include "packed.h"

namespace gossamer {

// float scale; then, for dense and panel products, int32 sums of the codes of every group; then, at
// the next multiple of 64, the codes.
constexpr int64_t kRowHeader = 4;

// Activations that a window of four kept codes chooses from, as one table of a byte shuffle.
constexpr int64_t kTableBytes = 16;

GOSSAMER_INLINE int64_t CodesOffset(const Packed& k) {
  return (kRowHeader + k.groups * 4 + kVectorBytes - 1) / kVectorBytes * kVectorBytes;
}

// Elements that the four kept codes of a window come from.
GOSSAMER_INLINE int64_t WindowSpan(const Packed& k) { return 4 * k.m / k.n; }

GOSSAMER_INLINE int64_t PlacesInWord(const Packed& k) { return 32 / k.place_bits(); }

// Panels fill up every group to whole windows of four elements.
GOSSAMER_INLINE int64_t PanelWindowsInGroup(const Packed& k) { return (k.group_size() + 3) / 4; }
GOSSAMER_INLINE int64_t PanelWindows(const Packed& k) { return k.groups * PanelWindowsInGroup(k); }

// Tiles that a panel holds side by side where there are many rows.
constexpr int64_t kPanelTiles = 4;

GOSSAMER_INLINE int64_t PanelScratch(const Packed& k, int64_t rows) {
  const int64_t tiles = rows > 1 ? kPanelTiles : 1;
  return tiles * PanelWindows(k) * kVectorBytes + tiles * 8 * kVectorBytes;
}

}  // namespace gossamer
