// The vectors of AVX2: two registers a tile's word. With VNNI where GOSSAMER_VNNI is defined.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace gossamer {
namespace {

struct Avx2 {
  struct Bytes {
    __m256i a, b;
  };
  using Sums = Bytes;
  struct Floats {
    __m256 a, b;
  };
  static constexpr bool kInRegisters = true;
#ifdef GOSSAMER_VNNI
  static constexpr bool kAnyByte = true;
#else
  static constexpr bool kAnyByte = false;
#endif
  static constexpr int kByteOffset = 128;
  static constexpr int kDenseTurns = 2;
  static constexpr bool kExpands = false;
  // Tiles and rows at once where codes are bytes or floats: as many sums as registers hold.
  static constexpr int kByteTiles = 2, kByteRows = 3;
  static constexpr int kFloatTiles = 1, kFloatRows = 6;
  // What makes activations the bytes that `Dot` takes, where codes are the signed ones.
  static constexpr int kActivationOffset = 128;

  static __m256i Get(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  }
  static void Put(void* to, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(to), v); }
  static Bytes Load(const uint8_t* from) { return {Get(from), Get(from + 32)}; }
  static Bytes Keep(Bytes v) { return v; }
  static Bytes LoadOnce(const uint8_t* from) { return Load(from); }
  static void Store(uint8_t* to, Bytes v) {
    Put(to, v.a);
    Put(to + 32, v.b);
  }
  static Bytes Twice(__m256i v) { return {v, v}; }
  static Bytes Fill(int byte) { return Twice(_mm256_set1_epi8(static_cast<char>(byte))); }
  static Bytes FillWord(uint32_t word) { return Twice(_mm256_set1_epi32(static_cast<int>(word))); }
  static Bytes MaskFlip(Bytes v, Bytes mask, Bytes flip) {
    return {_mm256_xor_si256(_mm256_and_si256(v.a, mask.a), flip.a),
            _mm256_xor_si256(_mm256_and_si256(v.b, mask.b), flip.b)};
  }
  static Bytes MaskOr(Bytes v, Bytes mask, Bytes base) {
    return {_mm256_or_si256(_mm256_and_si256(v.a, mask.a), base.a),
            _mm256_or_si256(_mm256_and_si256(v.b, mask.b), base.b)};
  }
  template <int kBits>
  static Bytes ShiftRight(Bytes v) {
    return {_mm256_srli_epi32(v.a, kBits), _mm256_srli_epi32(v.b, kBits)};
  }
  static Bytes ShiftRightBy(Bytes v, int bits) {
    const __m128i count = _mm_cvtsi32_si128(bits);
    return {_mm256_srl_epi32(v.a, count), _mm256_srl_epi32(v.b, count)};
  }
  static Bytes ShiftLeftBy(Bytes v, int bits) {
    const __m128i count = _mm_cvtsi32_si128(bits);
    return {_mm256_sll_epi32(v.a, count), _mm256_sll_epi32(v.b, count)};
  }
  static Bytes AddBytes(Bytes a, Bytes b) {
    return {_mm256_add_epi8(a.a, b.a), _mm256_add_epi8(a.b, b.b)};
  }
  static Bytes Equal(Bytes a, Bytes b) {
    return {_mm256_cmpeq_epi8(a.a, b.a), _mm256_cmpeq_epi8(a.b, b.b)};
  }
  static Bytes Spread(int j) {
    const __m128i first = _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    return Twice(_mm256_broadcastsi128_si256(
        _mm_add_epi8(first, _mm_set1_epi8(static_cast<char>(j)))));
  }
  static Bytes Window(const int8_t* four) {
    int32_t word;
    __builtin_memcpy(&word, four, 4);
    return Twice(_mm256_set1_epi32(word));
  }
  static Bytes Table(const int8_t* sixteen) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen));
    return Twice(_mm256_broadcastsi128_si256(half));
  }
  static Bytes HalfTable(const int8_t* eight) { return Table(eight); }
  static Bytes Lookup(Bytes table, Bytes index) {
    return {_mm256_shuffle_epi8(table.a, index.a), _mm256_shuffle_epi8(table.b, index.b)};
  }
  // The same from tables of 8, 16 or 64 bytes: the latter are looked up by quarters.
  struct Quarters {
    __m256i v[4];
  };
  template <int kBytes>
  static auto WideTable(const int8_t* from) {
    if constexpr (kBytes <= 16) {
      return Table(from);
    } else {
      return Quarters{Table(from).a, Table(from + 16).a, Table(from + 32).a, Table(from + 48).a};
    }
  }
  static __m256i LookupQuarters(const Quarters& table, __m256i index) {
    // A byte's bit 7 chooses: bits 4 and 5 are moved there.
    const __m256i odd = _mm256_slli_epi16(index, 3), upper = _mm256_slli_epi16(index, 2);
    const auto look = [&](int i) { return _mm256_shuffle_epi8(table.v[i], index); };
    return _mm256_blendv_epi8(_mm256_blendv_epi8(look(0), look(1), odd),
                              _mm256_blendv_epi8(look(2), look(3), odd), upper);
  }
  template <int kBytes, class Table>
  static Bytes WideLookup(const Table& table, Bytes index) {
    if constexpr (kBytes <= 16) {
      return Lookup(table, index);
    } else {
      return {LookupQuarters(table, index.a), LookupQuarters(table, index.b)};
    }
  }
  static Bytes SubtractBytes(Bytes a, Bytes b) {
    return {_mm256_sub_epi8(a.a, b.a), _mm256_sub_epi8(a.b, b.b)};
  }

  static Sums Zero() { return Twice(_mm256_setzero_si256()); }
  static Sums FromBytes(Bytes v) { return v; }
  static Bytes ToBytes(Sums v) { return v; }
  static Sums FillSums(int32_t value) { return Twice(_mm256_set1_epi32(value)); }
#ifdef GOSSAMER_VNNI
  static __m256i DotHalf(__m256i sums, __m256i bytes, __m256i codes) {
    return _mm256_dpbusd_avx_epi32(sums, bytes, codes);
  }
  static __m256i DotHalfSmall(__m256i sums, __m256i bytes, __m256i codes) {
    return DotHalf(sums, bytes, codes);
  }
#else
  // Bytes below 128: 2 * 127 * 127 < 2^15, so that the pairwise sums do not saturate.
  static __m256i Pairs(__m256i bytes, __m256i codes) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, codes), _mm256_set1_epi16(1));
  }
  static __m256i DotHalfSmall(__m256i sums, __m256i bytes, __m256i codes) {
    return _mm256_add_epi32(sums, Pairs(bytes, codes));
  }
  static __m256i DotHalf(__m256i sums, __m256i bytes, __m256i codes) {
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i low = Pairs(_mm256_and_si256(bytes, nibble), codes);
    const __m256i high =
        Pairs(_mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble), codes);
    return _mm256_add_epi32(sums, _mm256_add_epi32(low, _mm256_slli_epi32(high, 4)));
  }
#endif
  static Sums Dot(Sums sums, Bytes bytes, Bytes codes) {
    return {DotHalf(sums.a, bytes.a, codes.a), DotHalf(sums.b, bytes.b, codes.b)};
  }
  static Sums DotSmall(Sums sums, Bytes bytes, Bytes codes) {
    return {DotHalfSmall(sums.a, bytes.a, codes.a), DotHalfSmall(sums.b, bytes.b, codes.b)};
  }
  static Sums Add(Sums a, Sums b) {
    return {_mm256_add_epi32(a.a, b.a), _mm256_add_epi32(a.b, b.b)};
  }
  static Sums Subtract(Sums a, Sums b) {
    return {_mm256_sub_epi32(a.a, b.a), _mm256_sub_epi32(a.b, b.b)};
  }
  static Sums Multiply(Sums a, Sums b) {
    return {_mm256_mullo_epi32(a.a, b.a), _mm256_mullo_epi32(a.b, b.b)};
  }
  static Sums ShiftSums(Sums v, int bits) {
    return {_mm256_srai_epi32(v.a, bits), _mm256_srai_epi32(v.b, bits)};
  }
  static int32_t SumOf(Sums v) {
    int32_t eight[8];
    Put(eight, _mm256_add_epi32(v.a, v.b));
    int32_t sum = 0;
    for (int32_t value : eight) sum += value;
    return sum;
  }
  static Sums Widen(const int8_t* sixteen) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen));
    return {_mm256_cvtepi8_epi32(codes), _mm256_cvtepi8_epi32(_mm_srli_si128(codes, 8))};
  }

  template <int kByte>
  static Sums ByteOfLane(Bytes v) {
    const __m256i mask = _mm256_set1_epi32(255);
    return {_mm256_and_si256(_mm256_srli_epi32(v.a, 8 * kByte), mask),
            _mm256_and_si256(_mm256_srli_epi32(v.b, 8 * kByte), mask)};
  }

  static constexpr bool kLooksUpFloats = false;

  static Floats ZeroFloats() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Floats FillFloats(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static Floats LoadFloats(const float* from) {
    return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
  }
  static __m256 HalfBfloat16(const uint16_t* from) {
    const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
  }
  static Floats LoadBfloat16(const uint16_t* from) {
    return {HalfBfloat16(from), HalfBfloat16(from + 8)};
  }
  static void StoreFloats(float* to, Floats v) {
    _mm256_storeu_ps(to, v.a);
    _mm256_storeu_ps(to + 8, v.b);
  }
  static Floats ToFloats(Sums v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }
  static Floats AddFloats(Floats a, Floats b) {
    return {_mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b)};
  }
  static Floats FusedAdd(Floats sum, Floats a, Floats b) {
    return {_mm256_fmadd_ps(a.a, b.a, sum.a), _mm256_fmadd_ps(a.b, b.b, sum.b)};
  }
  static Floats SubtractFloats(Floats a, Floats b) {
    return {_mm256_sub_ps(a.a, b.a), _mm256_sub_ps(a.b, b.b)};
  }
  // e^x for x <= 0, to 2 units in the last place; Cephes' polynomial. NaN stays.
  static __m256 ExpHalf(__m256 x) {
    const __m256 least = _mm256_set1_ps(-87.0f);
    const __m256 near = _mm256_max_ps(least, x);
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(near, _mm256_set1_ps(1.44269504f)), 8);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), near);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f,
                    5.0000001201e-1f}) {
      p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
    }
    p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
    const __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
    return _mm256_andnot_ps(_mm256_cmp_ps(x, least, _CMP_LT_OQ), p);
  }
  static Floats Exp(Floats x) { return {ExpHalf(x.a), ExpHalf(x.b)}; }
  // The sums of sixteen vectors, one a lane.
  static Floats SumsOf(const Floats (&v)[16]) {
    float sums[16];
    for (int i = 0; i < 16; ++i) {
      float eight[8];
      _mm256_storeu_ps(eight, _mm256_add_ps(v[i].a, v[i].b));
      sums[i] = 0;
      for (float value : eight) sums[i] += value;
    }
    return LoadFloats(sums);
  }
  static Floats MultiplyFloats(Floats a, Floats b) {
    return {_mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b)};
  }
  static __m256i Absolute(__m256 v) {
    return _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff));
  }
  static Sums MaxAbs(Sums a, Floats b) {
    return {_mm256_max_epi32(a.a, Absolute(b.a)), _mm256_max_epi32(a.b, Absolute(b.b))};
  }
  static float LargestOf(Sums v) {
    int32_t eight[8];
    Put(eight, _mm256_max_epi32(v.a, v.b));
    int32_t bits = 0;
    for (int32_t value : eight) bits = value > bits ? value : bits;
    float largest;
    __builtin_memcpy(&largest, &bits, 4);
    return largest;
  }
  static void StoreCodes(int8_t* to, Floats v, Floats least, Floats most) {
    const __m256i a = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v.a, least.a), most.a));
    const __m256i b = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v.b, least.b), most.b));
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    const __m128i codes =
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), codes);
  }
};

}  // namespace
}  // namespace gossamer
