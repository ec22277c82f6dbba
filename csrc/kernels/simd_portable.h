// The same vectors in plain C++, for any processor; this is what the others are held to.
#pragma once

#include <cmath>
#include <cstdint>

namespace gossamer {
namespace {

struct Portable {
  struct Bytes {
    uint8_t v[64];
  };
  struct Sums {
    int32_t v[16];
  };
  struct Floats {
    float v[16];
  };
  static constexpr bool kAnyByte = true;
  static constexpr int kByteOffset = 128;
  static constexpr int kDenseTiles = 1, kDenseTurns = 1, kPlacesTiles = 1;  // at once for one row
  static constexpr int kPanelRows = 4;  // as many sums as registers hold beside codes

  static Bytes Load(const uint8_t* from) {
    Bytes r;
    __builtin_memcpy(r.v, from, 64);
    return r;
  }
  static void Store(uint8_t* to, Bytes v) { __builtin_memcpy(to, v.v, 64); }
  static Bytes Fill(int byte) {
    Bytes r;
    for (uint8_t& b : r.v) b = static_cast<uint8_t>(byte);
    return r;
  }
  static Bytes FillWord(uint32_t word) {
    Bytes r;
    for (int i = 0; i < 64; ++i) r.v[i] = static_cast<uint8_t>(word >> (8 * (i % 4)));
    return r;
  }
  static Bytes MaskFlip(Bytes v, Bytes mask, Bytes flip) {
    for (int i = 0; i < 64; ++i) v.v[i] = (v.v[i] & mask.v[i]) ^ flip.v[i];
    return v;
  }
  static Bytes MaskOr(Bytes v, Bytes mask, Bytes base) {
    for (int i = 0; i < 64; ++i) v.v[i] = (v.v[i] & mask.v[i]) | base.v[i];
    return v;
  }
  // Shifts words; what crosses a byte is masked off by the callers.
  template <int kBits>
  static Bytes ShiftRight(Bytes v) {
    for (int i = 0; i < 64; ++i) v.v[i] = static_cast<uint8_t>(v.v[i] >> kBits);
    return v;
  }
  static Bytes ShiftRightBy(Bytes v, int bits) {
    for (uint8_t& b : v.v) b = static_cast<uint8_t>(b >> bits);
    return v;
  }
  static Bytes ShiftLeftBy(Bytes v, int bits) {
    for (uint8_t& b : v.v) b = static_cast<uint8_t>(b << bits);
    return v;
  }
  static Bytes Equal(Bytes a, Bytes b) {
    for (int i = 0; i < 64; ++i) a.v[i] = a.v[i] == b.v[i] ? 0xff : 0;
    return a;
  }
  // The index that gives each lane its byte `j` four times.
  static Bytes Spread(int j) {
    Bytes r;
    for (int i = 0; i < 64; ++i) r.v[i] = static_cast<uint8_t>(i % 16 / 4 * 4 + j);
    return r;
  }
  static Bytes Window(const int8_t* four) {
    Bytes r;
    for (int i = 0; i < 64; ++i) r.v[i] = static_cast<uint8_t>(four[i % 4]);
    return r;
  }
  static Bytes Table(const int8_t* sixteen) {
    Bytes r;
    for (int i = 0; i < 64; ++i) r.v[i] = static_cast<uint8_t>(sixteen[i % 16]);
    return r;
  }
  static Bytes Lookup(Bytes table, Bytes index) {
    Bytes r;
    for (int i = 0; i < 64; ++i) r.v[i] = table.v[i / 16 * 16 + (index.v[i] & 15)];
    return r;
  }

  static Sums Zero() { return FillSums(0); }
  static Sums FillSums(int32_t value) {
    Sums r;
    for (int32_t& s : r.v) s = value;
    return r;
  }
  static Sums Dot(Sums sums, Bytes bytes, Bytes codes) {
    for (int i = 0; i < 64; ++i) {
      sums.v[i / 4] += int32_t{bytes.v[i]} * static_cast<int8_t>(codes.v[i]);
    }
    return sums;
  }
  static Sums DotSmall(Sums sums, Bytes bytes, Bytes codes) { return Dot(sums, bytes, codes); }
  static Sums Add(Sums a, Sums b) {
    for (int i = 0; i < 16; ++i) a.v[i] += b.v[i];
    return a;
  }
  static Sums Subtract(Sums a, Sums b) {
    for (int i = 0; i < 16; ++i) a.v[i] -= b.v[i];
    return a;
  }
  static Sums Multiply(Sums a, Sums b) {
    for (int i = 0; i < 16; ++i) a.v[i] *= b.v[i];
    return a;
  }
  static Sums ShiftSums(Sums v, int bits) {
    for (int32_t& s : v.v) s >>= bits;
    return v;
  }
  static int32_t SumOf(Sums v) {
    int32_t sum = 0;
    for (int32_t value : v.v) sum += value;
    return sum;
  }
  static Sums Widen(const int8_t* sixteen) {
    Sums r;
    for (int i = 0; i < 16; ++i) r.v[i] = sixteen[i];
    return r;
  }

  // Byte `kByte` of every lane, unsigned.
  template <int kByte>
  static Sums ByteOfLane(Bytes v) {
    Sums r;
    for (int i = 0; i < 16; ++i) r.v[i] = v.v[4 * i + kByte];
    return r;
  }

  static constexpr bool kLooksUpFloats = false;

  static Floats ZeroFloats() { return FillFloats(0.0f); }
  static Floats FillFloats(float value) {
    Floats r;
    for (float& f : r.v) f = value;
    return r;
  }
  static Floats LoadFloats(const float* from) {
    Floats r;
    __builtin_memcpy(r.v, from, sizeof r.v);
    return r;
  }
  static Floats LoadBfloat16(const uint16_t* from) {
    Floats r;
    for (int i = 0; i < 16; ++i) {
      const uint32_t bits = uint32_t{from[i]} << 16;
      __builtin_memcpy(&r.v[i], &bits, 4);
    }
    return r;
  }
  static void StoreFloats(float* to, Floats v) { __builtin_memcpy(to, v.v, sizeof v.v); }
  static Floats ToFloats(Sums v) {
    Floats r;
    for (int i = 0; i < 16; ++i) r.v[i] = static_cast<float>(v.v[i]);
    return r;
  }
  static Floats AddFloats(Floats a, Floats b) {
    for (int i = 0; i < 16; ++i) a.v[i] += b.v[i];
    return a;
  }
  // A product and a sum, rounded once where the processor can.
  static Floats FusedAdd(Floats sum, Floats a, Floats b) {
    for (int i = 0; i < 16; ++i) sum.v[i] += a.v[i] * b.v[i];
    return sum;
  }
  static Floats SubtractFloats(Floats a, Floats b) {
    for (int i = 0; i < 16; ++i) a.v[i] -= b.v[i];
    return a;
  }
  static Floats Exp(Floats x) {
    for (float& f : x.v) f = std::exp(f);
    return x;
  }
  // The sums of sixteen vectors, one a lane.
  static Floats SumsOf(const Floats (&v)[16]) {
    Floats r;
    for (int i = 0; i < 16; ++i) {
      r.v[i] = 0;
      for (float value : v[i].v) r.v[i] += value;
    }
    return r;
  }
  static Floats MultiplyFloats(Floats a, Floats b) {
    for (int i = 0; i < 16; ++i) a.v[i] *= b.v[i];
    return a;
  }
  // Sizes are compared as integers, so that a NaN is the largest and is not lost.
  static Sums MaxAbs(Sums a, Floats b) {
    for (int i = 0; i < 16; ++i) {
      int32_t bits;
      __builtin_memcpy(&bits, &b.v[i], 4);
      bits &= 0x7fffffff;
      a.v[i] = a.v[i] > bits ? a.v[i] : bits;
    }
    return a;
  }
  static float LargestOf(Sums v) {
    int32_t bits = 0;
    for (int32_t value : v.v) bits = value > bits ? value : bits;
    float largest;
    __builtin_memcpy(&largest, &bits, 4);
    return largest;
  }
  static void StoreCodes(int8_t* to, Floats v, Floats least, Floats most) {
    for (int i = 0; i < 16; ++i) {
      float value = v.v[i] > least.v[i] ? v.v[i] : least.v[i];
      value = value < most.v[i] ? value : most.v[i];
      to[i] = static_cast<int8_t>(std::nearbyint(value));
    }
  }
};

}  // namespace
}  // namespace gossamer
