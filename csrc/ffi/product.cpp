// The XLA handler of csrc/kernels/product.h: checks every buffer, then shares tiles among threads.
#include <cstdlib>
#include <string>

#include "../kernels/product.h"
#include "chosen.h"
#include "parallel.h"
#include "room.h"
#include "xla/ffi/api/ffi.h"

namespace gossamer {
namespace {

namespace ffi = xla::ffi;

using Bytes = ffi::Buffer<ffi::U8, 2>;
using Zeros = ffi::Buffer<ffi::S8, 3>;
using Number = ffi::Buffer<ffi::S32, 0>;

// Below so many bytes of weights and row a second thread costs more than it saves. Tried on two cores
// of a Zen 4, a step of SmolLM2 with 2:4 int4: 64 kB, 4.1 ms; 256 kB, 3.3; 600 kB, 3.6; never, 3.3.
constexpr int64_t kBytesWorthSharing = 256 << 10;
constexpr int64_t kChunksPerThread = 4;

ffi::Error Refuse(const std::string& what) {
  return ffi::Error::InvalidArgument("gossamer_product: " + what);
}

// Bytes that `count` fields of `bits` bits take in a tile.
int64_t TileBytes(int64_t count, int64_t bits) { return count * bits * kLanes / 8; }

int64_t IndexBytes(const Packed& k) {
  if (!k.sparse()) return 0;
  return k.place_bits() > 0 ? TileBytes(k.kept(), k.place_bits()) : TileBytes(k.in, 1);
}

bool RealOf(ffi::DataType type, Real& real) {
  real = type == ffi::F32 ? Real::kFloat32 : type == ffi::S8 ? Real::kInt8 : Real::kBfloat16;
  return type == ffi::F32 || type == ffi::S8 || type == ffi::BF16;
}

bool ScaleOf(ffi::DataType type, int64_t wanted) {
  switch (static_cast<ScaleType>(wanted)) {
    case ScaleType::kFloat32: return type == ffi::F32;
    case ScaleType::kBfloat16: return type == ffi::BF16;
    case ScaleType::kE8m0:
    case ScaleType::kE4m3: return type == ffi::U8;
  }
  return false;
}

template <class Buffer>
bool IsTiles(const Buffer& buffer, int64_t tiles, int64_t groups) {
  const auto d = buffer.dimensions();
  return d.size() == 3 && d[0] == tiles && d[1] == groups && d[2] == kLanes;
}

// Everything that the kernels rely on: after this no read leaves a buffer. The planes are those of
// a stack of `layers` kernels alike.
ffi::Error Check(const Product& p, Bytes values, Bytes indices, ffi::AnyBuffer scales,
                 Zeros zeros, int64_t layers) {
  const Packed& k = p.kernel;
  if (const char* why = WhyNot(p)) return Refuse(why);
  const int64_t tiles = layers * k.tiles();
  if (k.kept() * k.bits % 8 != 0) return Refuse("an output's codes fill no whole bytes");
  if (values.dimensions()[0] != tiles || k.value_bytes != TileBytes(k.kept(), k.bits)) {
    return Refuse("the plane of values has another size than the kernel");
  }
  if (k.sparse() && (indices.dimensions()[0] != tiles || k.index_bytes != IndexBytes(k))) {
    return Refuse("the plane of indices has another size than the kernel");
  }
  if (!ScaleOf(scales.element_type(), static_cast<int64_t>(k.scale_type)) ||
      !IsTiles(scales, tiles, k.groups)) {
    return Refuse("the plane of scales has another size or type than the kernel");
  }
  if (k.zeros != nullptr && !IsTiles(zeros, tiles, k.groups)) {
    return Refuse("the plane of zero points has another size than the kernel");
  }
  return ffi::Error::Success();
}

// Lets the planes begin at one of a stack's kernels.
void Enter(Packed& k, int64_t layer) {
  const int64_t tiles = layer * k.tiles(), numbers = tiles * k.groups * kLanes;
  const int64_t scale_bytes = k.scale_type == ScaleType::kFloat32    ? 4
                              : k.scale_type == ScaleType::kBfloat16 ? 2
                                                                     : 1;
  k.values += tiles * k.value_bytes;
  if (k.indices != nullptr) k.indices += tiles * k.index_bytes;
  k.scales = static_cast<const uint8_t*>(k.scales) + numbers * scale_bytes;
  if (k.zeros != nullptr) k.zeros += numbers;
}

// Whether a codebook says that codes of 4 bits stand for themselves.
bool IsItself(ffi::Span<const int8_t> book) {
  for (int i = 0; i < 16; ++i) {
    if (book[i] != (i < 8 ? i : i - 16)) return false;
  }
  return true;
}

void Run(const Target& target, const Product& p, ffi::ThreadPool& pool) {
  const int64_t row_bytes = p.row_bytes(), tiles = p.kernel.tiles();
  const int64_t bytes = tiles * (p.kernel.value_bytes + p.kernel.index_bytes);
  const int64_t work = bytes * p.rows;
  const int64_t threads = work < kBytesWorthSharing ? 1 : pool.num_threads();
  uint8_t* prepared = Room<0>(p.rows * row_bytes);
  ParallelFor(pool, p.rows, p.rows / (threads * kChunksPerThread) + 1,
              p.rows < threads * 2 ? 1 : threads, [&](int64_t first, int64_t last) {
                for (int64_t r = first; r < last; ++r) {
                  target.prepare(p, r, prepared + r * row_bytes);
                }
              });
  const int64_t tiles_at_once = p.tiles_at_once();
  const int64_t share = tiles / (threads * kChunksPerThread * tiles_at_once) + 1;
  const int64_t chunk = share * tiles_at_once;
  ParallelFor(pool, tiles, chunk, threads, [&](int64_t first, int64_t last) {
    target.multiply(p, prepared, first, last, Room<1>(p.scratch_bytes()));
  });
}

ffi::Error Multiply(ffi::ThreadPool pool, ffi::AnyBuffer x, Bytes values, Bytes indices,
                    ffi::AnyBuffer scales, Zeros zeros, Number layer,
                    ffi::Result<ffi::AnyBuffer> y, int64_t bits, int64_t n, int64_t m,
                    int64_t scale_type, int64_t activation_bits, int64_t layers,
                    ffi::Span<const int8_t> book) {
  const Target* target = Chosen();
  if (target == nullptr) return Refuse("GOSSAMER_TARGET names no target of this processor");
  Product p = {};
  const auto xs = x.dimensions(), ys = y->dimensions();
  if (xs.size() != 2 || ys.size() != 2 || xs[0] != ys[0]) {
    return Refuse("x is [rows, in] and y [rows, out]");
  }
  if (!RealOf(x.element_type(), p.real) ||
      y->element_type() != (p.real == Real::kBfloat16 ? ffi::BF16 : ffi::F32)) {
    return Refuse("x and y are both float32 or both bfloat16, or x is int8 and y float32");
  }
  if (scales.dimensions().size() != 3) return Refuse("scales are [tiles, groups, 16]");
  if (book.size() != 16) return Refuse("a codebook has 16 numbers");
  p.kernel = {values.typed_data(),
              n == m ? nullptr : indices.typed_data(),
              scales.untyped_data(),
              zeros.element_count() == 0 ? nullptr : zeros.typed_data(),
              IsItself(book) ? nullptr : book.begin(),
              values.dimensions()[1],
              n == m ? 0 : indices.dimensions()[1],
              xs[1],
              ys[1],
              scales.dimensions()[1],
              static_cast<ScaleType>(scale_type),
              static_cast<int32_t>(bits),
              static_cast<int32_t>(n),
              static_cast<int32_t>(m)};
  p.x = x.untyped_data();
  p.y = y->untyped_data();
  p.rows = xs[0];
  p.activation_bits = static_cast<int32_t>(activation_bits);
  p.target = target;
  if (auto error = Check(p, values, indices, scales, zeros, layers); error.failure()) return error;
  const int64_t number = *layer.typed_data();
  if (number < 0 || number >= layers) return Refuse("there is no such layer in the stack");
  Enter(p.kernel, number);
  Run(*target, p, pool);
  return ffi::Error::Success();
}

}  // namespace
}  // namespace gossamer

// Declared visible, since the macro does not say so and everything else is hidden.
extern "C" __attribute__((visibility("default"))) XLA_FFI_Error* gossamer_product(
    XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(gossamer_product, gossamer::Multiply,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<gossamer::Bytes>()
                                  .Arg<gossamer::Bytes>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<gossamer::Zeros>()
                                  .Arg<gossamer::Number>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Attr<int64_t>("bits")
                                  .Attr<int64_t>("n")
                                  .Attr<int64_t>("m")
                                  .Attr<int64_t>("scale_type")
                                  .Attr<int64_t>("activation_bits")
                                  .Attr<int64_t>("layers")
                                  .Attr<xla::ffi::Span<const int8_t>>("book"));
