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
// What a processor may read where it looks up more.
constexpr int64_t kWidestTable = 64;

GOSSAMER_INLINE int64_t CodesOffset(const Packed& k) {
  return (kRowHeader + k.groups * 4 + kVectorBytes - 1) / kVectorBytes * kVectorBytes;
}

// Elements that the four kept codes of a window come from.
GOSSAMER_INLINE int64_t WindowSpan(const Packed& k) { return 4 * k.m / k.n; }

GOSSAMER_INLINE int64_t PlacesInWord(const Packed& k) { return 32 / k.place_bits(); }

// Panels fill up every group to whole windows of four elements.
GOSSAMER_INLINE int64_t PanelWindowsInGroup(const Packed& k) { return (k.group_size() + 3) / 4; }
GOSSAMER_INLINE int64_t PanelWindows(const Packed& k) { return k.groups * PanelWindowsInGroup(k); }

// Kept codes and their places as bytes, before they are scattered.
GOSSAMER_INLINE int64_t UnpackScratch(const Packed& k) {
  return k.sparse() ? 2 * ((k.kept() + 3) / 4) * kVectorBytes : 0;
}

// Windows of kept codes of a tile.
GOSSAMER_INLINE int64_t KeptWindows(const Packed& k) { return k.kept() / 4; }

// Whether two windows, which choose from half a table each, share one: where a row's tables would
// leave too little of the first cache. On a Zen 4 a fifth faster then, and 2 % slower else.
GOSSAMER_INLINE bool SharesTables(const Packed& k) {
  return WindowSpan(k) * 2 <= kTableBytes && KeptWindows(k) * kTableBytes > (8 << 10);
}

// A tile's kept codes, their places and a vector for each group.
GOSSAMER_INLINE int64_t KeptPanelBytes(const Packed& k) {
  return (2 * KeptWindows(k) + k.groups) * kVectorBytes;
}

GOSSAMER_INLINE int64_t PanelScratch(const Packed& k, int64_t tiles) {
  return tiles * PanelWindows(k) * kVectorBytes + UnpackScratch(k);
}

// Windows of a panel of floats that are multiplied at once, so that they stay in a core's cache.
constexpr int64_t kFloatWindows = 64;

// Panels of bytes; for many rows floats of as many tiles and the sums of every row.
GOSSAMER_INLINE int64_t FloatScratch(const Packed& k, int64_t rows, int64_t tiles) {
  const int64_t floats = kFloatWindows * 4 * kVectorBytes, sums = rows * kVectorBytes;
  return PanelScratch(k, tiles) + tiles * (floats + sums);
}

}  // namespace gossamer
