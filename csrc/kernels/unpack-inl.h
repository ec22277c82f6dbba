// Unpacks a tile to bytes: windows of four consecutive elements, four bytes for each of 16 lanes.
#pragma once

#include <cstdint>

#include "fields.h"
#include "packed.h"
#include "prepared.h"

namespace gossamer {
namespace {

// What is added to a code to make it an unsigned byte.
template <class S>
constexpr int Offset(int bits) {
  return bits == 8 ? S::kByteOffset : 1 << (bits - 1);
}

// Fields of the words of one part, `width` bits each, to windows; they are moved up by `low`.
template <class S>
void PartWindows(const uint8_t* plane, int64_t words, int width, int low, uint8_t* windows) {
  const auto mask = S::Fill((1 << width) - 1);
  for (int64_t w = 0; w < words; ++w, plane += kVectorBytes) {
    const auto word = S::Load(plane);
    for (int shift = 0; shift < 8; shift += width, windows += kVectorBytes) {
      const auto field = S::ShiftLeftBy(S::MaskFlip(S::ShiftRightBy(word, shift), mask, S::Fill(0)),
                                        low);
      S::Store(windows, low == 0 ? field : S::MaskOr(field, S::Fill(0xff), S::Load(windows)));
    }
  }
}

// All `count` fields of a tile's plane, each with the bits of `flip` flipped.
template <class S>
void FieldWindows(const uint8_t* plane, int64_t count, int bits, int flip, uint8_t* windows) {
  const uint8_t* part = plane;
  int64_t in_words = count;  // fields that every part has in whole words
  int low = 0;
  for (int width = 8; width > 0; width /= 2) {
    if (!(bits & width)) continue;
    const int64_t words = count * width / 32;
    PartWindows<S>(part, words, width, low, windows);
    if (words * 32 / width < in_words) in_words = words * 32 / width;
    part += count * width / 8 * kLanes;
    low += width;
  }
  for (int64_t i = in_words; i < count; ++i) {
    for (int lane = 0; lane < kLanes; ++lane) {
      windows[(i / 4 * kLanes + lane) * 4 + i % 4] =
          static_cast<uint8_t>(ReadField(plane, count, bits, lane, i));
    }
  }
  if (flip == 0) return;
  for (int64_t w = 0; w < (count + 3) / 4; ++w, windows += kVectorBytes) {
    S::Store(windows, S::MaskFlip(S::Load(windows), S::Fill(0xff), S::Fill(flip)));
  }
}

GOSSAMER_INLINE int64_t ByteOf(int64_t index, int lane) {
  return (index / 4 * kLanes + lane) * 4 + index % 4;
}

// The kept codes of groups of four to their places: each is one window of the panel.
template <class S>
void ScatterFours(const uint8_t* codes, const uint8_t* places, int n, int64_t groups, int zero,
                  uint8_t* panel) {
  const auto flip = S::Fill(zero), all = S::Fill(0xff);
  const auto element = S::FillWord(0x03020100);
  for (int64_t g = 0; g < groups; ++g, panel += kVectorBytes) {
    auto window = S::Fill(0);
    for (int i = 0; i < n; ++i) {
      const int64_t kept = g * n + i;
      // Byte `kept % 4` of a lane to all four; a shuffle stays within 16 bytes, four lanes.
      const int j = static_cast<int>(kept % 4);
      const auto spread = S::Spread(j);
      const auto at = S::Lookup(S::Load(places + kept / 4 * kVectorBytes), spread);
      const auto code = S::Lookup(S::Load(codes + kept / 4 * kVectorBytes), spread);
      window = S::MaskOr(S::MaskFlip(code, all, flip), S::Equal(at, element), window);
    }
    S::Store(panel, S::MaskFlip(window, all, flip));
  }
}

inline void ScatterPlaces(const Packed& k, const uint8_t* codes, const uint8_t* places,
                          uint8_t* panel) {
  for (int64_t i = 0; i < k.kept(); ++i) {
    const int64_t first = i / k.n * k.m;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t from = ByteOf(i, lane);
      panel[ByteOf(first + places[from], lane)] = codes[from];
    }
  }
}

// Bitmaps of m bits a group, as bytes of a lane in windows; m is 16, 8, or less and within a byte.
inline void ScatterBitmaps(const Packed& k, const uint8_t* codes, const uint8_t* maps,
                           uint8_t* panel) {
  for (int lane = 0; lane < kLanes; ++lane) {
    int64_t next = 0;
    for (int64_t first = 0; first < k.in; first += k.m) {
      uint32_t map = maps[ByteOf(first / 8, lane)];
      if (k.m == 16) map |= uint32_t{maps[ByteOf(first / 8 + 1, lane)]} << 8;
      map = map >> (first % 8) & ((1u << k.m) - 1);
      const int64_t end = next + k.n;  // a malformed bitmap may have more bits, or fewer
      for (; map != 0 && next < end; map &= map - 1, ++next) {
        panel[ByteOf(first + __builtin_ctz(map), lane)] = codes[ByteOf(next, lane)];
      }
      next = end;
    }
  }
}

// Moves every group to a whole window, from the last on, so that nothing is overwritten unread.
inline void SpreadWindows(const Packed& k, int zero, uint8_t* panel) {
  const int64_t size = k.group_size();
  const int64_t room = PanelWindowsInGroup(k) * 4;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int64_t g = k.groups - 1; g >= 0; --g) {
      for (int64_t i = room - 1; i >= size; --i) {
        panel[ByteOf(g * room + i, lane)] = static_cast<uint8_t>(zero);
      }
      for (int64_t i = size - 1; i >= 0; --i) {
        panel[ByteOf(g * room + i, lane)] = panel[ByteOf(g * size + i, lane)];
      }
    }
  }
}

// Writes a tile to `panel` as unsigned bytes, each code plus `Offset`, every group filled up to
// whole windows. `scratch` holds UnpackScratch(k) bytes.
template <class S>
void UnpackTile(const Packed& k, int64_t tile, uint8_t* panel, uint8_t* scratch) {
  const uint8_t* values = k.values + tile * k.value_bytes;
  const int zero = Offset<S>(k.bits);
  // The lowest bit of a code's sign: adding 2^(b-1) to two's complement flips it.
  const int flip = k.bits == 8 ? S::kByteOffset : zero;
  if (!k.sparse()) {
    FieldWindows<S>(values, k.kept(), k.bits, flip, panel);
  } else {
    uint8_t* codes = scratch;
    uint8_t* indices = scratch + UnpackScratch(k) / 2;
    FieldWindows<S>(values, k.kept(), k.bits, flip, codes);
    const uint8_t* plane = k.indices + tile * k.index_bytes;
    const int place_bits = k.place_bits();
    if (place_bits > 0) {
      FieldWindows<S>(plane, k.kept(), place_bits, 0, indices);
    } else {
      FieldWindows<S>(plane, k.in / 8, 8, 0, indices);
    }
    if (place_bits == 2) {
      ScatterFours<S>(codes, indices, k.n, k.in / 4, zero, panel);
    } else {
      __builtin_memset(panel, zero, (k.in + 3) / 4 * kVectorBytes);
      if (place_bits > 0) {
        ScatterPlaces(k, codes, indices, panel);
      } else {
        ScatterBitmaps(k, codes, indices, panel);
      }
    }
  }
  if (k.group_size() % 4 != 0) SpreadWindows(k, zero, panel);
}

}  // namespace
}  // namespace gossamer
