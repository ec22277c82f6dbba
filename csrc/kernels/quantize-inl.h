// Quantizes a row of activations, to the codes of `Int.encode` in formats.py, and lays it out.
#pragma once

#include <cstdint>

#include "packed.h"
#include "prepared.h"
#include "product.h"
#include "scalars.h"

namespace gossamer {
namespace {

// `values` is a row of `real` numbers; gives 16 from `index` on, zeros behind the end.
template <class S>
typename S::Floats LoadReals(const void* values, Real real, int64_t index, int64_t size) {
  if (real == Real::kFloat32) {
    const float* from = static_cast<const float*>(values) + index;
    if (index + kLanes <= size) return S::LoadFloats(from);
    float rest[kLanes] = {};
    __builtin_memcpy(rest, from, (size - index) * sizeof(float));
    return S::LoadFloats(rest);
  }
  const uint16_t* from = static_cast<const uint16_t*>(values) + index;
  if (index + kLanes <= size) return S::LoadBfloat16(from);
  uint16_t rest[kLanes] = {};
  __builtin_memcpy(rest, from, (size - index) * sizeof(uint16_t));
  return S::LoadBfloat16(rest);
}

// Writes `size` codes, and zeros up to a multiple of 16; gives the scale.
template <class S>
float QuantizeRow(const void* values, Real real, int64_t size, int bits, int8_t* codes) {
  typename S::Sums largest = S::Zero();
  for (int64_t i = 0; i < size; i += kLanes) {
    largest = S::MaxAbs(largest, LoadReals<S>(values, real, i, size));
  }
  const int qmax = (1 << (bits - 1)) - 1;
  const float scale = ActivationScale(S::LargestOf(largest), qmax);
  const typename S::Floats inverse = S::FillFloats(1.0f / scale);
  const typename S::Floats least = S::FillFloats(static_cast<float>(-qmax));
  const typename S::Floats most = S::FillFloats(static_cast<float>(qmax));
  for (int64_t i = 0; i < size; i += kLanes) {
    const auto scaled = S::MultiplyFloats(LoadReals<S>(values, real, i, size), inverse);
    S::StoreCodes(codes + i, scaled, least, most);
  }
  return scale;
}

// Copies codes, with zeros up to a multiple of 16; gives their scale.
inline float CopyCodes(const void* values, int64_t size, int8_t* codes) {
  __builtin_memcpy(codes, values, size);
  __builtin_memset(codes + size, 0, (kLanes - size % kLanes) % kLanes);
  return 1.0f;
}

// Every group filled up to whole windows; from the last group on, so that nothing is overwritten.
inline void SpreadGroups(int8_t* codes, const Packed& k) {
  const int64_t size = k.group_size();
  const int64_t room = PanelWindowsInGroup(k) * 4;
  if (size == room) return;
  for (int64_t g = k.groups - 1; g >= 0; --g) {
    __builtin_memmove(codes + g * room, codes + g * size, size);
    for (int64_t i = size; i < room; ++i) codes[g * room + i] = 0;
  }
}

template <class S>
void SumGroups(const int8_t* codes, int64_t room, int64_t groups, int32_t* sums) {
  const auto ones = S::Fill(1);
  for (int64_t g = 0; g < groups; ++g, codes += room) {
    auto lanes = S::Zero();
    int64_t i = 0;
    for (; i + kVectorBytes <= room; i += kVectorBytes) {
      lanes = S::DotSmall(lanes, ones, S::Load(reinterpret_cast<const uint8_t*>(codes + i)));
    }
    int32_t sum = S::SumOf(lanes);
    for (; i < room; ++i) sum += codes[i];
    sums[g] = sum;
  }
}

// Codes as the bytes that tables of `Method::kKept` hold; a row has room for whole vectors.
template <class S>
void OffsetRow(int8_t* codes, int64_t size) {
  uint8_t* bytes = reinterpret_cast<uint8_t*>(codes);
  for (int64_t i = 0; i < size; i += kVectorBytes) {
    const auto flipped = S::MaskFlip(S::Load(bytes + i), S::Fill(0xff),
                                     S::Fill(S::kActivationOffset));
    S::Store(bytes + i, flipped);
  }
}

// Tables of 16 codes for windows of four kept ones. A window that chooses from 8 shares its table
// with that which is half a word of places later. In odd windows, whose places are used as they
// stand in bits 2 and 3, entry 4 p + b is element 4 b + p.
inline void WriteTables(const int8_t* codes, const Packed& k, int8_t* tables) {
  using Sixteen = uint8_t __attribute__((vector_size(16)));
  using Halves = int64_t __attribute__((vector_size(16)));
  const Sixteen turned = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const bool in_place = k.place_bits() == 2, shared = SharesTables(k);
  const int64_t windows = 8 / k.place_bits(), in_word = shared ? windows / 2 : windows;
  const int64_t span = WindowSpan(k);
  const int64_t later = shared ? in_word * span : kTableBytes / 2;  // where a second half is from
  for (int64_t words = k.kept() / PlacesInWord(k); words > 0; --words) {
    for (int64_t t = 0; t < in_word; ++t, codes += span, tables += kTableBytes) {
      int64_t first, second;
      __builtin_memcpy(&first, codes, sizeof first);
      __builtin_memcpy(&second, codes + later, sizeof second);
      auto table = reinterpret_cast<Sixteen>(Halves{first, second});
      if (in_place && t % 2) table = __builtin_shuffle(table, turned);
      __builtin_memcpy(tables, &table, sizeof table);
    }
    if (shared) codes += later;
  }
}

// A row as floats, every group filled up to whole windows.
template <class S>
void ConvertRow(const void* values, Real real, const Packed& k, float* row) {
  const int64_t size = k.group_size(), room = PanelWindowsInGroup(k) * 4;
  for (int64_t g = 0; g < k.groups; ++g, row += room) {
    const int64_t end = (g + 1) * size;
    int64_t i = g * size;
    for (; i + kLanes <= end; i += kLanes) {
      S::StoreFloats(row + i - g * size, LoadReals<S>(values, real, i, end));
    }
    float rest[kLanes];
    S::StoreFloats(rest, i < end ? LoadReals<S>(values, real, i, end) : S::ZeroFloats());
    __builtin_memcpy(row + i - g * size, rest, (room - (i - g * size)) * sizeof(float));
  }
}

template <class S>
void Prepare(const Product& p, int64_t row, uint8_t* prepared) {
  const Packed& k = p.kernel;
  const void* x = static_cast<const uint8_t*>(p.x) + row * k.in * p.real_bytes();
  if (p.floats()) {
    ConvertRow<S>(x, p.real, k, reinterpret_cast<float*>(prepared));
    return;
  }
  int8_t* codes = reinterpret_cast<int8_t*>(prepared + CodesOffset(k));
  int32_t* sums = reinterpret_cast<int32_t*>(prepared + kRowHeader);
  const Method method = p.method();
  float* scale = reinterpret_cast<float*>(prepared);
  const auto write = [&](int8_t* to) {
    return p.real == Real::kInt8 ? CopyCodes(x, k.in, to)
                                 : QuantizeRow<S>(x, p.real, k.in, p.activation_bits, to);
  };
  if (method == Method::kPlaces) {
    int8_t* plain = codes + k.kept() / 4 * kTableBytes;
    *scale = write(plain);
    WriteTables(plain, k, codes);
    return;
  }
  *scale = write(codes);
  if constexpr (S::kInRegisters) {
    if (method == Method::kKept) return OffsetRow<S>(codes, k.in);
  }
  if (method == Method::kPanel) SpreadGroups(codes, k);
  const int64_t room = method == Method::kPanel ? PanelWindowsInGroup(k) * 4 : k.group_size();
  SumGroups<S>(codes, room, k.groups, sums);
}

}  // namespace
}  // namespace gossamer
