// The same vectors for any processor, in the vector types of GCC and Clang; this is what the others
// are held to.
#pragma once

#include <cmath>
#include <cstdint>

namespace gossamer {
namespace {

struct Portable {
  using Bytes = uint8_t __attribute__((vector_size(64)));
  using Sums = int32_t __attribute__((vector_size(64)));
  using Words = uint32_t __attribute__((vector_size(64)));
  using Floats = float __attribute__((vector_size(64)));
  // Tiles are unpacked to bytes first: without shuffles nothing is won by less.
  static constexpr bool kInRegisters = false;
  static constexpr bool kAnyByte = true;
  static constexpr int kByteOffset = 128;
  static constexpr bool kExpands = false;
  // Tiles and rows at once where codes are bytes or floats.
  static constexpr int kByteTiles = 4, kByteRows = 2;
  static constexpr int kFloatTiles = 4, kFloatRows = 2;
  static constexpr bool kLooksUpFloats = false;

  template <class Vector>
  static Vector Read(const void* from) {
    Vector v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
  }
  static Bytes Load(const uint8_t* from) { return Read<Bytes>(from); }
  static Bytes Keep(Bytes v) { return v; }
  static Bytes LoadOnce(const uint8_t* from) { return Load(from); }
  static void Store(uint8_t* to, Bytes v) { __builtin_memcpy(to, &v, sizeof v); }
  static Bytes Fill(int byte) { return Bytes{} + static_cast<uint8_t>(byte); }
  static Bytes FillWord(uint32_t word) { return reinterpret_cast<Bytes>(Words{} + word); }
  static Bytes MaskFlip(Bytes v, Bytes mask, Bytes flip) { return (v & mask) ^ flip; }
  static Bytes MaskOr(Bytes v, Bytes mask, Bytes base) { return (v & mask) | base; }
  static Bytes ShiftRightBy(Bytes v, int bits) {
    return reinterpret_cast<Bytes>(reinterpret_cast<Words>(v) >> static_cast<uint32_t>(bits));
  }
  static Bytes ShiftLeftBy(Bytes v, int bits) {
    return reinterpret_cast<Bytes>(reinterpret_cast<Words>(v) << static_cast<uint32_t>(bits));
  }
  static Bytes AddBytes(Bytes a, Bytes b) { return a + b; }
  static Bytes Equal(Bytes a, Bytes b) { return reinterpret_cast<Bytes>(a == b); }
  // The index that gives each lane its byte `j` four times.
  static Bytes Spread(int j) {
    Bytes r;
    for (int i = 0; i < 64; ++i) r[i] = static_cast<uint8_t>(i % 16 / 4 * 4 + j);
    return r;
  }
  static Bytes Window(const int8_t* four) { return FillWord(Read<uint32_t>(four)); }
  static Bytes Lookup(Bytes table, Bytes index) {
    Bytes r;
    for (int i = 0; i < 64; ++i) r[i] = table[i / 16 * 16 + (index[i] & 15)];
    return r;
  }

  static Sums Zero() { return Sums{}; }
  static Sums FromBytes(Bytes v) { return reinterpret_cast<Sums>(v); }
  static Sums FillSums(int32_t value) { return Sums{} + value; }
  // Byte `kByte` of every lane, unsigned.
  template <int kByte>
  static Sums ByteOfLane(Bytes v) {
    return reinterpret_cast<Sums>(reinterpret_cast<Words>(v) >> (8 * kByte) & 255);
  }
  template <int kByte>
  static Sums SignedByteOfLane(Bytes v) {
    return reinterpret_cast<Sums>(reinterpret_cast<Words>(v) << (24 - 8 * kByte)) >> 24;
  }
  static Sums Dot(Sums sums, Bytes bytes, Bytes codes) {
    sums += ByteOfLane<0>(bytes) * SignedByteOfLane<0>(codes);
    sums += ByteOfLane<1>(bytes) * SignedByteOfLane<1>(codes);
    sums += ByteOfLane<2>(bytes) * SignedByteOfLane<2>(codes);
    return sums + ByteOfLane<3>(bytes) * SignedByteOfLane<3>(codes);
  }
  static Sums DotSmall(Sums sums, Bytes bytes, Bytes codes) { return Dot(sums, bytes, codes); }
  static Sums Add(Sums a, Sums b) { return a + b; }
  static Sums Subtract(Sums a, Sums b) { return a - b; }
  static Sums Multiply(Sums a, Sums b) { return a * b; }
  static int32_t SumOf(Sums v) {
    int32_t sum = 0;
    for (int i = 0; i < 16; ++i) sum += v[i];
    return sum;
  }
  static Sums Widen(const int8_t* sixteen) {
    Sums r;
    for (int i = 0; i < 16; ++i) r[i] = sixteen[i];
    return r;
  }
  // Sizes are compared as integers, so that a NaN is the largest and is not lost.
  static Sums MaxAbs(Sums a, Floats b) {
    const Sums bits = reinterpret_cast<Sums>(b) & 0x7fffffff;
    return a > bits ? a : bits;
  }
  static float LargestOf(Sums v) {
    int32_t bits = 0;
    for (int i = 0; i < 16; ++i) bits = v[i] > bits ? v[i] : bits;
    return Read<float>(&bits);
  }

  static Floats ZeroFloats() { return Floats{}; }
  static Floats FillFloats(float value) { return Floats{} + value; }
  static Floats LoadFloats(const float* from) { return Read<Floats>(from); }
  static Floats LoadBfloat16(const uint16_t* from) {
    Words r;
    for (int i = 0; i < 16; ++i) r[i] = uint32_t{from[i]} << 16;
    return reinterpret_cast<Floats>(r);
  }
  static void StoreFloats(float* to, Floats v) { __builtin_memcpy(to, &v, sizeof v); }
  static Floats ToFloats(Sums v) { return __builtin_convertvector(v, Floats); }
  static Floats AddFloats(Floats a, Floats b) { return a + b; }
  static Floats SubtractFloats(Floats a, Floats b) { return a - b; }
  static Floats MultiplyFloats(Floats a, Floats b) { return a * b; }
  // A product and a sum, rounded once where the processor can.
  static Floats FusedAdd(Floats sum, Floats a, Floats b) { return sum + a * b; }
  static Floats Exp(Floats x) {
    for (int i = 0; i < 16; ++i) x[i] = std::exp(x[i]);
    return x;
  }
  // The sums of sixteen vectors, one a lane.
  static Floats SumsOf(const Floats (&v)[16]) {
    Floats r = {};
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 16; ++j) r[i] += v[i][j];
    }
    return r;
  }
  static void StoreCodes(int8_t* to, Floats v, Floats least, Floats most) {
    for (int i = 0; i < 16; ++i) {
      float value = v[i] > least[i] ? v[i] : least[i];
      value = value < most[i] ? value : most[i];
      to[i] = static_cast<int8_t>(std::nearbyint(value));
    }
  }
};

}  // namespace
}  // namespace gossamer
