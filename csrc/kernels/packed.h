// A packed kernel [in, out] as pointers and sizes; docs/packed-layout.md draws the bytes.
//
// Nothing here knows XLA or Python, allocates or throws. Everything is read, never written.
#pragma once

#include <cstdint>

namespace gossamer {

// Files are compiled for different processors: what they share must be inlined, or the linker would
// keep one file's copy for all.
#define GOSSAMER_INLINE inline __attribute__((always_inline))
// The same for a lambda, behind its parameters.
#define GOSSAMER_STEP __attribute__((always_inline))

// Outputs of a tile. One word of 4 bytes for each of them is a vector of 64 bytes.
constexpr int kLanes = 16;
constexpr int kVectorBytes = 64;
static_assert(kLanes * 4 == kVectorBytes, "a word a lane fills a vector");

enum class ScaleType : int32_t { kFloat32, kBfloat16, kE8m0, kE4m3 };
// Of activations; kInt8 are codes already, whose scale is 1.
enum class Real : int32_t { kFloat32, kBfloat16, kInt8 };

// One kernel. A dense one has n == m == 1 and no indices.
struct Packed {
  const uint8_t* values;   // [tiles, value_bytes]
  const uint8_t* indices;  // [tiles, index_bytes], or nullptr
  const void* scales;      // [tiles, groups, 16] of `scale_type`
  const int8_t* zeros;     // [tiles, groups, 16], or nullptr
  const int8_t* book;      // what the 16 codes of 4 bits stand for, 0 first; nullptr: themselves
  int64_t value_bytes;
  int64_t index_bytes;
  int64_t in;
  int64_t out;
  int64_t groups;
  ScaleType scale_type;
  int32_t bits;
  int32_t n;
  int32_t m;

  GOSSAMER_INLINE int64_t tiles() const { return (out + kLanes - 1) / kLanes; }
  GOSSAMER_INLINE int64_t kept() const { return in / m * n; }
  GOSSAMER_INLINE int64_t group_size() const { return in / groups; }
  GOSSAMER_INLINE bool sparse() const { return n != m; }
  // Bits of the bytes that codes become: what is looked up needs all of a byte.
  GOSSAMER_INLINE int byte_bits() const { return book == nullptr ? bits : 8; }
  // log2(m), where places are stored as such; 0 where a bitmap of m bits a group is smaller.
  GOSSAMER_INLINE int place_bits() const {
    int bits = 0;
    while ((1 << bits) < m) ++bits;
    return n * bits <= m ? bits : 0;
  }
};

}  // namespace gossamer
