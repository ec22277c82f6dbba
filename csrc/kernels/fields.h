// Reads single fields of a tile: those in the tail that fills no word, too narrow for vectors.
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

}  // namespace
}  // namespace gossamer
