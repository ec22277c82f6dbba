// The vectors of 64-bit Arm with the dot product instructions: four registers a tile's word.
#pragma once

#include <arm_neon.h>

#include <cmath>
#include <cstdint>

namespace gossamer {
namespace {

struct Neon {
  struct Bytes {
    uint8x16_t v[4];
  };
  struct Sums {
    int32x4_t v[4];
  };
  struct Floats {
    float32x4_t v[4];
  };
  static constexpr bool kInRegisters = true;
  // `Dot` takes signed bytes: codes of 8 bits as they are, others below 128.
  static constexpr bool kAnyByte = false;
  static constexpr int kByteOffset = 0;
  static constexpr int kDenseTurns = 1;
  static constexpr bool kExpands = false;
  // Tiles and rows at once where codes are bytes or floats: sums fill half of the registers.
  static constexpr int kByteTiles = 1, kByteRows = 4;
  static constexpr int kFloatTiles = 1, kFloatRows = 4;
  static constexpr int kActivationOffset = 0;
  static constexpr bool kLooksUpFloats = false;

  template <class Result, class Step>
  static Result Each(Step step) {
    Result r;
    for (int i = 0; i < 4; ++i) r.v[i] = step(i);
    return r;
  }
  static Bytes Load(const uint8_t* from) {
    return Each<Bytes>([&](int i) { return vld1q_u8(from + 16 * i); });
  }
  static Bytes Keep(Bytes v) { return v; }
  static Bytes LoadOnce(const uint8_t* from) { return Load(from); }
  static void Store(uint8_t* to, Bytes a) {
    for (int i = 0; i < 4; ++i) vst1q_u8(to + 16 * i, a.v[i]);
  }
  static Bytes Fill(int byte) {
    return Each<Bytes>([&](int) { return vdupq_n_u8(static_cast<uint8_t>(byte)); });
  }
  static Bytes FillWord(uint32_t word) {
    return Each<Bytes>([&](int) { return vreinterpretq_u8_u32(vdupq_n_u32(word)); });
  }
  static Bytes MaskFlip(Bytes a, Bytes mask, Bytes flip) {
    return Each<Bytes>([&](int i) { return veorq_u8(vandq_u8(a.v[i], mask.v[i]), flip.v[i]); });
  }
  static Bytes MaskOr(Bytes a, Bytes mask, Bytes base) {
    return Each<Bytes>([&](int i) { return vorrq_u8(vandq_u8(a.v[i], mask.v[i]), base.v[i]); });
  }
  // A shift to the left by a negative number of bits is one to the right.
  static Bytes ShiftLeftBy(Bytes a, int bits) {
    const int8x16_t count = vdupq_n_s8(static_cast<int8_t>(bits));
    return Each<Bytes>([&](int i) { return vshlq_u8(a.v[i], count); });
  }
  static Bytes ShiftRightBy(Bytes a, int bits) { return ShiftLeftBy(a, -bits); }
  template <int kBits>
  static Bytes ShiftRight(Bytes a) {
    return ShiftRightBy(a, kBits);
  }
  static Bytes AddBytes(Bytes a, Bytes b) {
    return Each<Bytes>([&](int i) { return vaddq_u8(a.v[i], b.v[i]); });
  }
  static Bytes Equal(Bytes a, Bytes b) {
    return Each<Bytes>([&](int i) { return vceqq_u8(a.v[i], b.v[i]); });
  }
  // The index that gives each lane its byte `j` four times.
  static Bytes Spread(int j) {
    const uint8_t first[16] = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
    const uint8x16_t index = vaddq_u8(vld1q_u8(first), vdupq_n_u8(static_cast<uint8_t>(j)));
    return Each<Bytes>([&](int) { return index; });
  }
  static Bytes Window(const int8_t* four) {
    uint32_t word;
    __builtin_memcpy(&word, four, sizeof word);
    return FillWord(word);
  }
  static Bytes Table(const int8_t* sixteen) {
    const uint8x16_t table = vreinterpretq_u8_s8(vld1q_s8(sixteen));
    return Each<Bytes>([&](int) { return table; });
  }
  static Bytes HalfTable(const int8_t* eight) { return Table(eight); }
  static Bytes Lookup(Bytes table, Bytes index) {
    return Each<Bytes>([&](int i) { return vqtbl1q_u8(table.v[i], index.v[i]); });
  }
  // The same from tables of 8, 16 or 64 bytes.
  template <int kBytes>
  static auto WideTable(const int8_t* from) {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(from);
    if constexpr (kBytes <= 16) {
      return vld1q_u8(bytes);
    } else {
      return uint8x16x4_t{{vld1q_u8(bytes), vld1q_u8(bytes + 16), vld1q_u8(bytes + 32),
                           vld1q_u8(bytes + 48)}};
    }
  }
  template <int kBytes, class Table>
  static Bytes WideLookup(const Table& table, Bytes index) {
    return Each<Bytes>([&](int i) {
      if constexpr (kBytes <= 16) {
        return vqtbl1q_u8(table, index.v[i]);
      } else {
        return vqtbl4q_u8(table, index.v[i]);
      }
    });
  }
  static Bytes SubtractBytes(Bytes a, Bytes b) {
    return Each<Bytes>([&](int i) { return vsubq_u8(a.v[i], b.v[i]); });
  }

  static Sums Zero() { return FillSums(0); }
  static Sums FillSums(int32_t value) {
    return Each<Sums>([&](int) { return vdupq_n_s32(value); });
  }
  static Sums FromBytes(Bytes a) {
    return Each<Sums>([&](int i) { return vreinterpretq_s32_u8(a.v[i]); });
  }
  static Bytes ToBytes(Sums a) {
    return Each<Bytes>([&](int i) { return vreinterpretq_u8_s32(a.v[i]); });
  }
  static Sums Dot(Sums sums, Bytes bytes, Bytes codes) {
    return Each<Sums>([&](int i) {
      return vdotq_s32(sums.v[i], vreinterpretq_s8_u8(bytes.v[i]), vreinterpretq_s8_u8(codes.v[i]));
    });
  }
  static Sums DotSmall(Sums sums, Bytes bytes, Bytes codes) { return Dot(sums, bytes, codes); }
  static Sums Add(Sums a, Sums b) {
    return Each<Sums>([&](int i) { return vaddq_s32(a.v[i], b.v[i]); });
  }
  static Sums Subtract(Sums a, Sums b) {
    return Each<Sums>([&](int i) { return vsubq_s32(a.v[i], b.v[i]); });
  }
  static Sums Multiply(Sums a, Sums b) {
    return Each<Sums>([&](int i) { return vmulq_s32(a.v[i], b.v[i]); });
  }
  static Sums ShiftSums(Sums a, int bits) {
    return Each<Sums>([&](int i) { return vshlq_s32(a.v[i], vdupq_n_s32(-bits)); });
  }
  static int32_t SumOf(Sums a) {
    return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3])));
  }
  static Sums Widen(const int8_t* sixteen) {
    const int8x16_t codes = vld1q_s8(sixteen);
    const int16x8_t low = vmovl_s8(vget_low_s8(codes)), high = vmovl_high_s8(codes);
    return {{vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)),
             vmovl_high_s16(high)}};
  }
  // Byte `kByte` of every lane as `Dot` takes it, signed.
  template <int kByte>
  static Sums ByteOfLane(Bytes a) {
    return Each<Sums>([&](int i) {
      return vshrq_n_s32(vshlq_n_s32(vreinterpretq_s32_u8(a.v[i]), 24 - 8 * kByte), 24);
    });
  }
  // Sizes are compared as integers, so that a NaN is the largest and is not lost.
  static Sums MaxAbs(Sums a, Floats b) {
    const int32x4_t mask = vdupq_n_s32(0x7fffffff);
    return Each<Sums>([&](int i) {
      return vmaxq_s32(a.v[i], vandq_s32(vreinterpretq_s32_f32(b.v[i]), mask));
    });
  }
  static float LargestOf(Sums a) {
    const int32_t bits =
        vmaxvq_s32(vmaxq_s32(vmaxq_s32(a.v[0], a.v[1]), vmaxq_s32(a.v[2], a.v[3])));
    float largest;
    __builtin_memcpy(&largest, &bits, sizeof largest);
    return largest;
  }

  static Floats ZeroFloats() { return FillFloats(0.0f); }
  static Floats FillFloats(float value) {
    return Each<Floats>([&](int) { return vdupq_n_f32(value); });
  }
  static Floats LoadFloats(const float* from) {
    return Each<Floats>([&](int i) { return vld1q_f32(from + 4 * i); });
  }
  static Floats LoadBfloat16(const uint16_t* from) {
    return Each<Floats>([&](int i) {
      return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(from + 4 * i), 16));
    });
  }
  static void StoreFloats(float* to, Floats a) {
    for (int i = 0; i < 4; ++i) vst1q_f32(to + 4 * i, a.v[i]);
  }
  static Floats ToFloats(Sums a) {
    return Each<Floats>([&](int i) { return vcvtq_f32_s32(a.v[i]); });
  }
  static Floats AddFloats(Floats a, Floats b) {
    return Each<Floats>([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
  }
  static Floats SubtractFloats(Floats a, Floats b) {
    return Each<Floats>([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
  }
  static Floats MultiplyFloats(Floats a, Floats b) {
    return Each<Floats>([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
  }
  static Floats FusedAdd(Floats sum, Floats a, Floats b) {
    return Each<Floats>([&](int i) { return vfmaq_f32(sum.v[i], a.v[i], b.v[i]); });
  }
  static Floats Exp(Floats a) {
    float lanes[16];
    StoreFloats(lanes, a);
    for (float& lane : lanes) lane = std::exp(lane);
    return LoadFloats(lanes);
  }
  // The sums of sixteen vectors, one a lane.
  static Floats SumsOf(const Floats (&a)[16]) {
    float sums[16];
    for (int i = 0; i < 16; ++i) {
      sums[i] = vaddvq_f32(
          vaddq_f32(vaddq_f32(a[i].v[0], a[i].v[1]), vaddq_f32(a[i].v[2], a[i].v[3])));
    }
    return LoadFloats(sums);
  }
  // Half to even, then narrowed: clipped before, so that nothing saturates.
  static void StoreCodes(int8_t* to, Floats a, Floats least, Floats most) {
    const Sums codes = Each<Sums>([&](int i) {
      return vcvtnq_s32_f32(vminq_f32(vmaxq_f32(a.v[i], least.v[i]), most.v[i]));
    });
    const int16x8_t low = vcombine_s16(vmovn_s32(codes.v[0]), vmovn_s32(codes.v[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32(codes.v[2]), vmovn_s32(codes.v[3]));
    vst1q_s8(to, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
  }
};

}  // namespace
}  // namespace gossamer
