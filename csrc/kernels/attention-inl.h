// Attention over a cache, written once on the vectors of `S` (simd_*.h).
#pragma once

#include <cmath>
#include <cstdint>

#include "attention.h"
#include "packed.h"
#include "scalars.h"
#include "tile-inl.h"

namespace gossamer {
namespace {

// Sixteen numbers of a cached key or value, before its scale.
template <class S>
GOSSAMER_INLINE typename S::Floats LoadCached(const float* from) {
  return S::LoadFloats(from);
}
template <class S>
GOSSAMER_INLINE typename S::Floats LoadCached(const uint16_t* from) {
  return S::LoadBfloat16(from);
}
template <class S>
GOSSAMER_INLINE typename S::Floats LoadCached(const int8_t* from) {
  return S::ToFloats(S::Widen(from));
}

inline void StoreCached(const float* from, int64_t size, float* to, float*) {
  __builtin_memcpy(to, from, size * sizeof(float));
}
inline void StoreCached(const float* from, int64_t size, uint16_t* to, float*) {
  for (int64_t i = 0; i < size; ++i) to[i] = ToBfloat16(from[i]);
}
// One scale a token and head: absmax / 127, half to even, as activations are.
inline void StoreCached(const float* from, int64_t size, int8_t* to, float* scale) {
  float absmax = 0;
  for (int64_t i = 0; i < size; ++i) {
    const float value = from[i] < 0 ? -from[i] : from[i];
    absmax = value > absmax || value != value ? value : absmax;
  }
  *scale = ActivationScale(absmax, 127);
  const float inverse = 1.0f / *scale;
  for (int64_t i = 0; i < size; ++i) {
    float code = std::nearbyint(from[i] * inverse);
    code = code > -127.0f ? code : -127.0f;
    to[i] = static_cast<int8_t>(code < 127.0f ? code : 127.0f);
  }
}

template <class S>
typename S::Floats LoadSome(const float* from, int64_t count) {
  if (count >= kLanes) return S::LoadFloats(from);
  float rest[kLanes] = {};
  __builtin_memcpy(rest, from, count * sizeof(float));
  return S::LoadFloats(rest);
}

// The part of the cache that a head group reads: one key-value head of one sequence.
template <class Cached>
struct CachedHead {
  Cached* keys;
  Cached* values;
  float* key_scales;  // nullptr: the numbers are what they are
  float* value_scales;

  CachedHead(const Attention& a, int64_t at)
      : keys(static_cast<Cached*>(a.key_cache) + at * a.room * a.head_dim),
        values(static_cast<Cached*>(a.value_cache) + at * a.room * a.head_dim),
        key_scales(a.key_scales == nullptr ? nullptr : a.key_scales + at * a.room),
        value_scales(a.value_scales == nullptr ? nullptr : a.value_scales + at * a.room) {}
};

template <class Cached>
void Append(const Attention& a, int64_t at, const CachedHead<Cached>& head) {
  const int64_t size = a.head_dim, t = a.length;
  float unused;
  StoreCached(a.keys + at * size, size, head.keys + t * size,
              head.key_scales == nullptr ? &unused : head.key_scales + t);
  StoreCached(a.values + at * size, size, head.values + t * size,
              head.value_scales == nullptr ? &unused : head.value_scales + t);
}

// Scores of `count` tokens, sixteen at most, for one scaled query of 16 kVectors numbers.
template <class S, int kVectors, class Cached>
GOSSAMER_INLINE typename S::Floats Scores(const float* q, typename S::Floats scale,
                                          const Cached* keys, const float* key_scales,
                                          int64_t count) {
  typename S::Floats query[kVectors];
  Unroll<kVectors>([&](auto v) GOSSAMER_STEP {
    query[v] = S::MultiplyFloats(S::LoadFloats(q + v * kLanes), scale);
  });
  typename S::Floats sums[kLanes];
  Unroll<kLanes>([&](auto t) GOSSAMER_STEP {
    sums[t] = S::ZeroFloats();
    if (t >= count) return;
    Unroll<kVectors>([&](auto v) GOSSAMER_STEP {
      const auto key = LoadCached<S>(keys + (t * kVectors + v) * kLanes);
      sums[t] = S::FusedAdd(sums[t], query[v], key);
    });
  });
  const auto scores = S::SumsOf(sums);
  return key_scales == nullptr ? scores
                               : S::MultiplyFloats(scores, LoadSome<S>(key_scales, count));
}

// Scores to powers in place, those behind the end to 0; gives the powers' sum. With scales of the
// values every power takes its token's in.
template <class S>
float Softmax(float* scores, int64_t tokens, int64_t padded, const float* value_scales) {
  float most = -INFINITY;
  for (int64_t s = 0; s < tokens; ++s) most = scores[s] > most ? scores[s] : most;
  for (int64_t s = tokens; s < padded; ++s) scores[s] = -INFINITY;
  auto total = S::ZeroFloats();
  for (int64_t s = 0; s < padded; s += kLanes) {
    auto power = S::Exp(S::SubtractFloats(S::LoadFloats(scores + s), S::FillFloats(most)));
    total = S::AddFloats(total, power);
    if (value_scales != nullptr) {
      power = S::MultiplyFloats(power, LoadSome<S>(value_scales + s, tokens - s));
    }
    S::StoreFloats(scores + s, power);
  }
  float lanes[kLanes], sum = 0;
  S::StoreFloats(lanes, total);
  for (float lane : lanes) sum += lane;
  return sum;
}

// Adds `count` tokens' values, each times its power, to `mixed`.
template <class S, int kVectors, class Cached>
GOSSAMER_INLINE void Mix(const float* powers, const Cached* values, int64_t count, float* mixed) {
  typename S::Floats sums[kVectors];
  Unroll<kVectors>([&](auto v) GOSSAMER_STEP { sums[v] = S::LoadFloats(mixed + v * kLanes); });
  for (int64_t t = 0; t < count; ++t) {
    const auto power = S::FillFloats(powers[t]);
    Unroll<kVectors>([&](auto v) GOSSAMER_STEP {
      const auto value = LoadCached<S>(values + (t * kVectors + v) * kLanes);
      sums[v] = S::FusedAdd(sums[v], power, value);
    });
  }
  Unroll<kVectors>([&](auto v) GOSSAMER_STEP { S::StoreFloats(mixed + v * kLanes, sums[v]); });
}

// One head group: sixteen tokens at a time for all of its queries, so that memory is read once.
template <class S, int kVectors, class Cached>
void AttendGroup(const Attention& a, int64_t at, float* scores) {
  const int64_t group = a.heads / a.kv_heads, size = a.head_dim, tokens = a.length + 1;
  const int64_t padded = (tokens + kLanes - 1) / kLanes * kLanes;
  const CachedHead<Cached> head(a, at);
  Append(a, at, head);
  const auto scale = S::FillFloats(1.0f / std::sqrt(static_cast<float>(size)));
  const float* queries = a.queries + at * group * size;
  for (int64_t s = 0; s < tokens; s += kLanes) {
    const float* scales = head.key_scales == nullptr ? nullptr : head.key_scales + s;
    for (int64_t g = 0; g < group; ++g) {
      const auto block = Scores<S, kVectors>(queries + g * size, scale, head.keys + s * size,
                                             scales, tokens - s);
      S::StoreFloats(scores + g * padded + s, block);
    }
  }
  float* out = a.outputs + at * group * size;
  __builtin_memset(out, 0, group * size * sizeof(float));
  float sums[kMostQueries];
  for (int64_t g = 0; g < group; ++g) {
    sums[g] = Softmax<S>(scores + g * padded, tokens, padded, head.value_scales);
  }
  for (int64_t s = 0; s < tokens; s += kLanes) {
    const int64_t count = tokens - s < kLanes ? tokens - s : kLanes;
    for (int64_t g = 0; g < group; ++g) {
      Mix<S, kVectors>(scores + g * padded + s, head.values + s * size, count, out + g * size);
    }
  }
  for (int64_t i = 0; i < group * size; ++i) out[i] /= sums[i / size];
}

template <class S, class Cached>
void AttendOf(const Attention& a, int64_t at, float* scores) {
  switch (a.head_dim) {
    case 32: return AttendGroup<S, 2, Cached>(a, at, scores);
    case 64: return AttendGroup<S, 4, Cached>(a, at, scores);
    case 80: return AttendGroup<S, 5, Cached>(a, at, scores);
    case 96: return AttendGroup<S, 6, Cached>(a, at, scores);
    case 128: return AttendGroup<S, 8, Cached>(a, at, scores);
    default: return AttendGroup<S, 16, Cached>(a, at, scores);
  }
}

template <class S>
void Attend(const Attention& a, int64_t first, int64_t last, uint8_t* scratch) {
  float* scores = reinterpret_cast<float*>(scratch);
  for (int64_t at = first; at < last; ++at) {
    if (a.type == CacheType::kFloat32) AttendOf<S, float>(a, at, scores);
    if (a.type == CacheType::kBfloat16) AttendOf<S, uint16_t>(a, at, scores);
    if (a.type == CacheType::kInt8) AttendOf<S, int8_t>(a, at, scores);
  }
}

}  // namespace
}  // namespace gossamer
