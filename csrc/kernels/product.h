// Products of activations with a packed kernel, y = x W.
//
// With activations quantized on the way, to codes q with one scale s a row:
//
//   y[r, o] = s[r] * sum over groups g of t[g, o] * sum over i in g of q[r, i] (c[i, o] - z[g, o])
//
// where c and t are the kernel's codes and scales and z its zero points. The inner sum is an exact
// int32; groups are added in order, each as one rounded product and one rounded sum, so that every
// target gives the same bits.
//
// With activations left floats the sums are float32, in an order that is the target's.
#pragma once

#include <cstdint>
#include <string_view>

#include "attention.h"
#include "packed.h"

namespace gossamer {

// How a product is computed; chosen once from the shapes.
enum class Method {
  kDense,   // words of codes, unpacked in registers
  kPlaces,  // words of kept codes and words of their places; activations are looked up
  kKept,    // kept codes and their places unpacked to bytes; activations are looked up, many rows
  kBitmap,  // words of kept codes of 4:8 or 8:16 and of bitmaps, put together in registers
  kPanel,   // the kernel's tile unpacked to bytes first: any pattern, width and group, many rows
};

// Rows up to which a kernel is unpacked in registers, again for every few of them.
constexpr int64_t kFewRows = 16;

struct Target;

struct Product {
  Packed kernel;
  const void* x;  // [rows, in] of `real`
  void* y;        // [rows, out] of `real`, or float32 where that is kInt8
  int64_t rows;
  Real real;
  int32_t activation_bits;  // 2 to 8; 0 leaves activations floats; codes have 8 at most
  const Target* target;     // whose kernels are meant

  bool floats() const { return activation_bits == 0; }
  // Bytes of a number of x.
  int64_t real_bytes() const {
    return real == Real::kFloat32 ? 4 : real == Real::kBfloat16 ? 2 : 1;
  }

  Method method() const;
  // Bytes of a prepared row; of the room that one call of `multiply` needs.
  int64_t row_bytes() const;
  int64_t scratch_bytes() const;
  // Tiles that `multiply` takes together: ranges that are multiples of it waste nothing.
  int64_t tiles_at_once() const;
};

// Why no kernel computes this product, or nullptr. Sizes only: buffers are the caller's to check.
const char* WhyNot(const Product& p);

// The kernels of one instruction set.
struct Target {
  const char* name;
  bool in_registers;  // whether it has kernels for kDense and kPlaces
  bool expands;       // and for kBitmap
  int byte_tiles;     // that it unpacks to bytes and multiplies by many rows at once
  int float_tiles;    // and to floats
  bool (*runs)();  // on this processor
  // Quantizes row `row` of x, or converts it, and lays it out as `p.method()` needs it.
  void (*prepare)(const Product& p, int64_t row, uint8_t* prepared);
  // Computes tiles [first, last) of all rows; `prepared` holds p.rows times p.row_bytes(),
  // `scratch` p.scratch_bytes(), both at multiples of 64.
  void (*multiply)(const Product& p, const uint8_t* prepared, int64_t first, int64_t last,
                   uint8_t* scratch);
  // Computes head groups [first, last) of batch * kv_heads; `scratch` at a multiple of 64.
  void (*attend)(const Attention& a, int64_t first, int64_t last, uint8_t* scratch);
  // Reads memory in equal parts side by side, asking for what is `ahead`; see read-inl.h.
  uint64_t (*read)(const uint8_t* data, int64_t bytes, int64_t streams, int64_t ahead);
  // Multiplies and adds in registers, bytes or floats; gives how often. See peak-inl.h.
  int64_t (*multiply_adds)(const uint8_t* data, int64_t steps, bool floats, float* result);
};

// The fastest target that this processor runs, or the one named; nullptr if it cannot run that.
const Target* FindTarget(std::string_view name);

// All that are compiled in, the fastest first; ends with a nullptr.
const Target* const* AllTargets();

}  // namespace gossamer
