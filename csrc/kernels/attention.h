// Attention of one new token a sequence over the keys and values that a cache holds.
//
//   o[n] = sum over s of softmax_s(q[n] . k[s] / sqrt(H)) v[s],   s <= length
//
// The new token's key and value are written at position `length` first; only filled positions are
// read. Heads n = j G ... j G + G - 1 share key-value head j (grouped queries).
#pragma once

#include <cstdint>

namespace gossamer {

enum class CacheType : int32_t { kFloat32, kBfloat16, kInt8 };

struct Attention {
  const float* queries;  // [batch, heads, head_dim], rotated, not scaled
  const float* keys;     // [batch, kv_heads, head_dim], of the new token, rotated
  const float* values;   // [batch, kv_heads, head_dim]
  void* key_cache;       // [batch, kv_heads, room, head_dim] of `type`, updated in place
  void* value_cache;
  float* key_scales;     // [batch, kv_heads, room]; nullptr unless `type` is kInt8
  float* value_scales;
  float* outputs;        // [batch, heads, head_dim]
  int64_t batch;
  int64_t heads;
  int64_t kv_heads;
  int64_t room;
  int64_t head_dim;  // one of 32, 64, 80, 96, 128, 256
  int64_t length;    // tokens seen before this one, less than room
  CacheType type;

  // Bytes of scratch that one head group needs.
  int64_t scratch_bytes() const {
    return (heads / kv_heads) * ((length + 1 + 15) / 16 * 16) * 4 + 64;
  }
};

// Queries that share a key-value head, at most.
constexpr int64_t kMostQueries = 64;

// Why no kernel computes this, or nullptr. Sizes only.
const char* WhyNot(const Attention& a);

}  // namespace gossamer
