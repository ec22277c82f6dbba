// The vectors of AVX-512 with VNNI, VBMI and VBMI2: a tile's word is one register.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace gossamer {
namespace {

struct Avx512 {
  using Bytes = __m512i;   // 64 bytes, four a lane
  using Sums = __m512i;    // an int32 a lane
  using Floats = __m512;   // a float a lane
  static constexpr bool kInRegisters = true;
  // `Dot` takes any unsigned byte, so that fields need not be shifted down.
  static constexpr bool kAnyByte = true;
  // What is added to codes of 8 bits to make them the bytes that `Dot` takes.
  static constexpr int kByteOffset = 128;
  // Sums of a dense tile for one row. Tried on a Zen 5: several tiles at once instead, up to a
  // quarter faster from cache and slower from memory by as much.
  static constexpr int kDenseTurns = 4;
  // Tiles and rows at once where codes are bytes: registers hold a group's sums and those of all.
  // Tried on a Zen 4, 512 rows and [2048, 8192]: 2 by 6, 1 % slower, and 6 % with kept codes.
  static constexpr int kByteTiles = 3, kByteRows = 4;
  static constexpr int kFloatTiles = 4, kFloatRows = 6;  // the sums of a block are in memory
  // What makes activations the bytes that `Dot` takes, where codes are the signed ones.
  static constexpr int kActivationOffset = 128;

  static Bytes Load(const uint8_t* from) { return _mm512_loadu_si512(from); }
  // A vector of many uses: without the barrier GCC reads it again for each, and loads become the
  // limit of floats.
  static Bytes LoadOnce(const uint8_t* from) {
    return Keep(Load(from));
  }
  // The same vector, which a compiler does not make again where it is used.
  static Bytes Keep(Bytes v) {
    asm("" : "+v"(v));
    return v;
  }
  static void Store(uint8_t* to, Bytes v) { _mm512_storeu_si512(to, v); }
  static Bytes Fill(int byte) { return _mm512_set1_epi8(static_cast<char>(byte)); }
  static Bytes FillWord(uint32_t word) { return _mm512_set1_epi32(static_cast<int>(word)); }
  // (v & mask) ^ flip and (v & mask) | base, one instruction each.
  static Bytes MaskFlip(Bytes v, Bytes mask, Bytes flip) {
    return _mm512_ternarylogic_epi32(v, mask, flip, 0x6a);
  }
  static Bytes MaskOr(Bytes v, Bytes mask, Bytes base) {
    return _mm512_ternarylogic_epi32(v, mask, base, 0xea);
  }
  template <int kBits>
  static Bytes ShiftRight(Bytes v) {
    return _mm512_srli_epi32(v, kBits);
  }
  static Bytes ShiftRightBy(Bytes v, int bits) {
    return _mm512_srl_epi32(v, _mm_cvtsi32_si128(bits));
  }
  static Bytes ShiftLeftBy(Bytes v, int bits) {
    return _mm512_sll_epi32(v, _mm_cvtsi32_si128(bits));
  }
  static Bytes AddBytes(Bytes a, Bytes b) { return _mm512_add_epi8(a, b); }
  // All ones where bytes are equal.
  static Bytes Equal(Bytes a, Bytes b) { return _mm512_movm_epi8(_mm512_cmpeq_epi8_mask(a, b)); }
  // The index that gives each lane its byte `j` four times.
  static Bytes Spread(int j) {
    const __m128i first = _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    return _mm512_broadcast_i32x4(_mm_add_epi8(first, _mm_set1_epi8(static_cast<char>(j))));
  }
  static Bytes Window(const int8_t* four) {
    int32_t word;
    __builtin_memcpy(&word, four, 4);
    return _mm512_set1_epi32(word);
  }
  static Bytes Table(const int8_t* sixteen) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
  }
  // A table of which the first eight are used: cheaper to load.
  static Bytes HalfTable(const int8_t* eight) { return Repeat<8>(eight); }
  static Bytes Lookup(Bytes table, Bytes index) { return _mm512_shuffle_epi8(table, index); }
  // The same from tables of 8, 16 or 64 bytes.
  template <int kBytes>
  static Bytes WideTable(const int8_t* from) {
    if constexpr (kBytes <= 16) return Repeat<kBytes>(from);
    return _mm512_loadu_si512(from);
  }
  template <int kBytes>
  static Bytes WideLookup(Bytes table, Bytes index) {
    return kBytes <= 16 ? Lookup(table, index) : _mm512_permutexvar_epi8(index, table);
  }
  static Bytes SubtractBytes(Bytes a, Bytes b) { return _mm512_sub_epi8(a, b); }

  // For each group of kM elements of a word of bitmaps, for each 64 / kM lanes, their bits.
  static constexpr bool kExpands = true;
  template <int kM>
  static void StoreMasks(uint64_t (&masks)[8], Bytes maps) {
    constexpr int kBytes = kM / 8, kPartLanes = kVectorBytes / kM, kParts = kLanes / kPartLanes;
    alignas(64) static constexpr auto order = [] {
      struct { uint8_t at[64]; } order = {};
      for (int i = 0; i < 64; ++i) {
        const int lane = i / 8 % kParts * kPartLanes + i % 8 / kBytes;
        order.at[i] = 4 * lane + i / 8 / kParts * kBytes + i % kBytes;
      }
      return order;
    }();
    _mm512_store_si512(masks, _mm512_permutexvar_epi8(Load(order.at), maps));
  }
  // Bytes of half kHalf, one after the other, to where `mask` has bits; zeros elsewhere.
  template <int kHalf>
  static Bytes Expand(uint64_t mask, Bytes v) {
    const Bytes half = kHalf == 0 ? v : _mm512_castsi256_si512(_mm512_extracti64x4_epi64(v, 1));
    return _mm512_maskz_expand_epi8(mask, half);
  }
  // Places of the bits of two of these masks, each counted from the first bit of its group.
  template <int kM>
  static Bytes KeptPlaces(uint64_t first, uint64_t second) {
    const __m128i sixteen = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m128i group = _mm_and_si128(sixteen, _mm_set1_epi8(kM - 1));
    const __m512i all = _mm512_broadcast_i32x4(group);
    const __m256i upper = _mm512_castsi512_si256(_mm512_maskz_compress_epi8(second, all));
    return _mm512_inserti64x4(_mm512_maskz_compress_epi8(first, all), upper, 1);
  }
  // Every other lane of `a` and then of `b`, from lane kFirst on.
  template <int kFirst>
  static __m512i Neighbours(__m512i a, __m512i b) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_epi32(a, _mm512_add_epi32(even, _mm512_set1_epi32(kFirst)), b);
  }
  // Words of a and b by turns, of the first eight lanes or the others.
  template <int kHalf>
  static Bytes ZipLanes(Bytes a, Bytes b) {
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_epi32(a, _mm512_add_epi32(first, _mm512_set1_epi32(8 * kHalf)), b);
  }
  // kCount bytes, again and again.
  template <int kCount>
  static Bytes Repeat(const int8_t* from) {
    if constexpr (kCount == 16) return Table(from);
    // GCC broadcasts from a general register: two instructions more for the pipes of vectors.
    Bytes v;
    asm("vpbroadcastq %1, %0" : "=v"(v) : "m"(*reinterpret_cast<const int8_t(*)[8]>(from)));
    return v;
  }

  static Sums Zero() { return _mm512_setzero_si512(); }
  static Sums FromBytes(Bytes v) { return v; }
  static Bytes ToBytes(Sums v) { return v; }
  static Sums FillSums(int32_t value) { return _mm512_set1_epi32(value); }
  // Adds the four products of unsigned and signed bytes of every lane.
  static Sums Dot(Sums sums, Bytes bytes, Bytes codes) {
    return _mm512_dpbusd_epi32(sums, bytes, codes);
  }
  static Sums DotSmall(Sums sums, Bytes bytes, Bytes codes) { return Dot(sums, bytes, codes); }
  static Sums Add(Sums a, Sums b) { return _mm512_add_epi32(a, b); }
  // Sums of neighbours, those of `a` and then those of `b`.
  static Sums AddNeighbours(Sums a, Sums b) {
    return Add(Neighbours<0>(a, b), Neighbours<1>(a, b));
  }
  static Sums Subtract(Sums a, Sums b) { return _mm512_sub_epi32(a, b); }
  static Sums Multiply(Sums a, Sums b) { return _mm512_mullo_epi32(a, b); }
  static Sums ShiftSums(Sums v, int bits) { return _mm512_srai_epi32(v, bits); }
  static int32_t SumOf(Sums v) { return _mm512_reduce_add_epi32(v); }
  static Sums Widen(const int8_t* sixteen) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
  }

  template <int kByte>
  static Sums ByteOfLane(Bytes v) {
    if constexpr (kByte == 3) return _mm512_srli_epi32(v, 24);
    return _mm512_and_si512(_mm512_srli_epi32(v, 8 * kByte), _mm512_set1_epi32(255));
  }

  // Sixteen floats are looked up by the low four bits of a lane.
  static constexpr bool kLooksUpFloats = true;
  static Floats LookupFloats(Floats table, Sums index) {
    return _mm512_permutexvar_ps(index, table);
  }
  // Upper halves of floats, looked up by the low five bits of a lane's upper half.
  static Floats LookupUpper(Bytes halves, Bytes index) {
    const __mmask32 upper = 0xaaaaaaaa;
    return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(upper, index, halves));
  }
  // kCount floats, again and again.
  template <int kCount>
  static Floats RepeatFloats(const float* from) {
    if constexpr (kCount == 16) return _mm512_loadu_ps(from);
    if constexpr (kCount == 8) return _mm512_broadcast_f32x8(_mm256_loadu_ps(from));
    if constexpr (kCount == 4) return _mm512_broadcast_f32x4(_mm_loadu_ps(from));
    double pair;
    __builtin_memcpy(&pair, from, sizeof pair);
    return _mm512_castpd_ps(_mm512_set1_pd(pair));
  }
  template <int kShift>
  static Sums SignedByteAt(Bytes v) {
    return _mm512_srai_epi32(_mm512_slli_epi32(v, 24 - kShift), 24);
  }

  static Floats ZeroFloats() { return _mm512_setzero_ps(); }
  static Floats FillFloats(float value) { return _mm512_set1_ps(value); }
  static Floats LoadFloats(const float* from) { return _mm512_loadu_ps(from); }
  static Floats LoadBfloat16(const uint16_t* from) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  static void StoreFloats(float* to, Floats v) { _mm512_storeu_ps(to, v); }
  static Floats ToFloats(Sums v) { return _mm512_cvtepi32_ps(v); }
  static Floats AddFloats(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats FusedAdd(Floats sum, Floats a, Floats b) { return _mm512_fmadd_ps(a, b, sum); }
  static Floats SubtractFloats(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  // e^x for x <= 0, to 2 units in the last place; Cephes' polynomial. NaN stays.
  static Floats Exp(Floats x) {
    const __m512 near = _mm512_max_ps(_mm512_set1_ps(-200.0f), x);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(near, _mm512_set1_ps(1.44269504f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), near);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f,
                    5.0000001201e-1f}) {
      p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
  }
  // The sums of sixteen vectors, one a lane: four steps, each adds halves of pairs.
  static Floats SumsOf(const Floats (&v)[16]) {
    __m512 a[8], b[4], c[2];
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
    const __m512i high =
        _mm512_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    for (int i = 0; i < 8; ++i) {
      a[i] = _mm512_add_ps(_mm512_permutex2var_ps(v[i], low, v[i + 8]),
                           _mm512_permutex2var_ps(v[i], high, v[i + 8]));
    }
    for (int i = 0; i < 4; ++i) {
      b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 4], 0x88),
                           _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd));
    }
    for (int i = 0; i < 2; ++i) {
      c[i] = _mm512_add_ps(_mm512_shuffle_ps(b[i], b[i + 2], 0x44),
                           _mm512_shuffle_ps(b[i], b[i + 2], 0xee));
    }
    const __m512 sums = _mm512_add_ps(_mm512_shuffle_ps(c[0], c[1], 0x88),
                                      _mm512_shuffle_ps(c[0], c[1], 0xdd));
    const __m512i order =
        _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
    return _mm512_permutexvar_ps(order, sums);
  }
  static Floats MultiplyFloats(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  // Sizes are compared as integers, so that a NaN is the largest and is not lost.
  static Sums MaxAbs(Sums a, Floats b) {
    return _mm512_max_epu32(a, _mm512_castps_si512(_mm512_abs_ps(b)));
  }
  static float LargestOf(Sums v) {
    const uint32_t bits = _mm512_reduce_max_epu32(v);
    float largest;
    __builtin_memcpy(&largest, &bits, 4);
    return largest;
  }
  // Half to even, then clipped; four vectors make 64 codes, in order.
  static void StoreCodes(int8_t* to, Floats v, Floats least, Floats most) {
    const Floats clipped = _mm512_min_ps(_mm512_max_ps(v, least), most);
    const __m512i rounded = _mm512_cvt_roundps_epi32(clipped, _MM_FROUND_TO_NEAREST_INT |
                                                                  _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(rounded));
  }
};

}  // namespace
}  // namespace gossamer
