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

// A codebook as a table of `Lookup`: what every code stands for, plus `Offset`.
template <class S>
GOSSAMER_INLINE typename S::Bytes BookTable(const int8_t* book) {
  uint8_t table[kVectorBytes];
  for (int i = 0; i < kVectorBytes; ++i) {
    table[i] = static_cast<uint8_t>(book[i % 16] + S::kByteOffset);
  }
  return S::Load(table);
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

// The kept codes of groups of four to their places: each is one window of the panel. All that
// scatters takes codes as they are stored, so that what is not kept is zero before it flips.
template <class S>
void ScatterFours(const uint8_t* codes, const uint8_t* places, int n, int64_t groups, int flip,
                  uint8_t* panel) {
  const auto flips = S::Fill(flip), all = S::Fill(0xff);
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
      window = S::MaskOr(code, S::Equal(at, element), window);
    }
    S::Store(panel, S::MaskFlip(window, all, flips));
  }
}

inline void ScatterPlaces(const Packed& k, const uint8_t* codes, const uint8_t* places, int flip,
                          uint8_t* panel) {
  __builtin_memset(panel, flip, (k.in + 3) / 4 * kVectorBytes);
  for (int64_t i = 0; i < k.kept(); ++i) {
    const int64_t first = i / k.n * k.m;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t from = ByteOf(i, lane);
      panel[ByteOf(first + places[from], lane)] = codes[from] ^ static_cast<uint8_t>(flip);
    }
  }
}

// Bits that are set in each of 16 numbers of four bits, as a table of `Lookup`.
alignas(kVectorBytes) constexpr uint8_t kBitCounts[kVectorBytes] = {
    0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
    0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};

// The kept codes of a group to where its bitmap has bits: `element` is its first, `kept` that of
// the codes. An element's code is that of as many as there are bits before it; it is looked up in
// every window of codes that can hold it.
template <class S>
GOSSAMER_INLINE void ScatterBitmap(int n, int m, const uint8_t* codes, const uint8_t* maps,
                                   int64_t element, int64_t kept, int flip, uint8_t* panel) {
  const auto nibble = S::Fill(15), own = S::FillWord(0x08040201), below = S::FillWord(0x07030100);
  const auto none = S::Fill(0), counts = S::Load(kBitCounts), lane = S::Spread(0);
  const int start = static_cast<int>(kept % 4);
  auto before = S::Fill(start);
  for (int i = 0; i < m; i += 4, element += 4) {
    const auto word = S::Load(maps + element / 32 * kVectorBytes);
    const auto byte = S::Lookup(word, S::Spread(static_cast<int>(element / 8 % 4)));
    const auto bits = S::MaskFlip(S::ShiftRightBy(byte, element % 8), nibble, none);
    const auto marked = S::Equal(S::MaskFlip(bits, own, none), own);
    const auto rank = S::AddBytes(before, S::Lookup(counts, S::MaskFlip(bits, below, none)));
    before = S::AddBytes(before, S::Lookup(counts, bits));
    const int first = n - m + i > 0 ? n - m + i : 0, last = i + 3 < n ? i + 3 : n - 1;
    auto window = none;
    for (int c = (start + first) / 4; c <= (start + last) / 4; ++c) {
      const auto at = S::AddBytes(rank, S::Fill(-4 * c));
      const auto here = S::Equal(S::MaskFlip(at, S::Fill(0xfc), none), none);
      const auto code =
          S::Lookup(S::Load(codes + (kept / 4 + c) * kVectorBytes), S::AddBytes(at, lane));
      window = S::MaskOr(code, S::MaskFlip(here, marked, none), window);
    }
    S::Store(panel + element / 4 * kVectorBytes,
             S::MaskFlip(window, S::Fill(0xff), S::Fill(flip)));
  }
}

// All groups. Inlined with constants for the patterns that are common: twice as fast.
template <class S>
GOSSAMER_INLINE void ScatterBitmaps(int n, int m, int64_t groups, const uint8_t* codes,
                                    const uint8_t* maps, int flip, uint8_t* panel) {
  for (int64_t g = 0; g < groups; ++g) {
    ScatterBitmap<S>(n, m, codes, maps, g * m, g * n, flip, panel);
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

// Codes to what they stand for, plus `Offset`.
template <class S>
void LookUp(const int8_t* book, uint8_t* windows, int64_t count) {
  const auto table = BookTable<S>(book);
  for (int64_t w = 0; w < count; ++w, windows += kVectorBytes) {
    S::Store(windows, S::Lookup(table, S::Load(windows)));
  }
}

// Writes a tile to `panel` as unsigned bytes, each code plus `Offset`, every group filled up to
// whole windows. `scratch` holds UnpackScratch(k) bytes.
template <class S>
void UnpackTile(const Packed& k, int64_t tile, uint8_t* panel, uint8_t* scratch) {
  const uint8_t* values = k.values + tile * k.value_bytes;
  // The lowest bit of a code's sign: adding 2^(b-1) to two's complement flips it.
  const int flip = k.book == nullptr ? Offset<S>(k.bits) : 0;
  if (!k.sparse()) {
    FieldWindows<S>(values, k.kept(), k.bits, flip, panel);
  } else {
    uint8_t* codes = scratch;
    uint8_t* indices = scratch + UnpackScratch(k) / 2;
    FieldWindows<S>(values, k.kept(), k.bits, 0, codes);
    const uint8_t* plane = k.indices + tile * k.index_bytes;
    const int place_bits = k.place_bits();
    if (place_bits > 0) {
      FieldWindows<S>(plane, k.kept(), place_bits, 0, indices);
    } else {
      FieldWindows<S>(plane, k.in / 8, 8, 0, indices);
    }
    if (place_bits == 2) {
      ScatterFours<S>(codes, indices, k.n, k.in / 4, flip, panel);
    } else if (place_bits > 0) {
      ScatterPlaces(k, codes, indices, flip, panel);
    } else {
      const int64_t groups = k.in / k.m;
      if (k.n == 4 && k.m == 8) {
        ScatterBitmaps<S>(4, 8, groups, codes, indices, flip, panel);
      } else if (k.n == 8 && k.m == 16) {
        ScatterBitmaps<S>(8, 16, groups, codes, indices, flip, panel);
      } else {
        ScatterBitmaps<S>(k.n, k.m, groups, codes, indices, flip, panel);
      }
    }
  }
  if (k.group_size() % 4 != 0) SpreadWindows(k, flip, panel);
  if (k.book != nullptr) LookUp<S>(k.book, panel, PanelWindows(k));
}

}  // namespace
}  // namespace gossamer
