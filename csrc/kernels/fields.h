// Reads single fields of a tile, for the cases that no vector kernel covers. Slow and general.
#pragma once

#include <cstdint>

#include "packed.h"

namespace gossamer {
namespace {

// Field `index` of `lane` among `count` fields of `width` bits, a power of two, in windows.
inline uint32_t ReadPart(const uint8_t* plane, int64_t count, int width, int lane, int64_t index) {
  const int64_t bytes = count * width / 8;  // of the lane
  const int64_t words = bytes / 4;
  const int64_t in_words = words * 32 / width;
  const uint8_t* base = plane + words * kVectorBytes + lane * (bytes % 4);
  int64_t length = bytes % 4;
  if (index < in_words) {
    const int64_t a_word = 32 / width;
    base = plane + index / a_word * kVectorBytes + lane * 4;
    index %= a_word;
    length = 4;
  } else {
    index -= in_words;
  }
  return base[index % length] >> (width * (index / length)) & ((1u << width) - 1);
}

// A field of any width of 1 to 8 bits: 3 = 2 + 1, 7 = 4 + 2 + 1, low bits first.
inline uint32_t ReadField(const uint8_t* plane, int64_t count, int bits, int lane, int64_t index) {
  uint32_t field = 0;
  int low = 0;
  for (int width = 8; width > 0; width /= 2) {
    if (!(bits & width)) continue;
    field |= ReadPart(plane, count, width, lane, index) << low;
    plane += count * width / 8 * kLanes;
    low += width;
  }
  return field;
}

// A code in two's complement.
inline int ReadCode(const Packed& k, int64_t tile, int lane, int64_t kept) {
  const uint8_t* plane = k.values + tile * k.value_bytes;
  const int sign = 1 << (k.bits - 1);
  return static_cast<int>(ReadField(plane, k.kept(), k.bits, lane, kept) ^ sign) - sign;
}

// Bit `place` of the bitmap of `group`: byte after byte of the lane, bytes in words.
inline bool ReadBit(const Packed& k, int64_t tile, int lane, int64_t group, int place) {
  const int64_t bit = group * k.m + place;
  const uint8_t* plane = k.indices + tile * k.index_bytes;
  return ReadPart(plane, k.index_bytes / kLanes, 8, lane, bit / 8) >> (bit % 8) & 1;
}

// Calls take(element, code) for every stored weight of a lane, in the order of `in`.
template <class Take>
void ForEachKept(const Packed& k, int64_t tile, int lane, Take take) {
  if (!k.sparse()) {
    for (int64_t i = 0; i < k.in; ++i) take(i, ReadCode(k, tile, lane, i));
    return;
  }
  const int place_bits = k.place_bits();
  int64_t next = 0;
  for (int64_t group = 0; group < k.in / k.m; ++group) {
    if (place_bits > 0) {
      const uint8_t* plane = k.indices + tile * k.index_bytes;
      for (int i = 0; i < k.n; ++i, ++next) {
        const int64_t place = ReadField(plane, k.kept(), place_bits, lane, next);
        take(group * k.m + place, ReadCode(k, tile, lane, next));
      }
      continue;
    }
    const int64_t end = next + k.n;  // a malformed bitmap may have more bits
    for (int place = 0; place < k.m && next < end; ++place) {
      if (ReadBit(k, tile, lane, group, place)) {
        take(group * k.m + place, ReadCode(k, tile, lane, next++));
      }
    }
    next = end;
  }
}

}  // namespace
}  // namespace gossamer
