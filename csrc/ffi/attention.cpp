// The XLA handlers of csrc/kernels/attention.h: they check every buffer and share head groups among
// threads. The caches are updated in place: their results are the operands' memory.
#include "../kernels/attention.h"

#include <algorithm>
#include <string>
#include <vector>

#include "../kernels/product.h"
#include "chosen.h"
#include "parallel.h"
#include "room.h"
#include "xla/ffi/api/ffi.h"

namespace gossamer {
namespace {

namespace ffi = xla::ffi;

using Heads = ffi::Buffer<ffi::F32, 3>;
using Number = ffi::Buffer<ffi::S32, 0>;

// Below so many bytes of keys and values a second thread costs more than it saves.
constexpr int64_t kBytesWorthSharing = 256 << 10;

ffi::Error Refuse(const std::string& what) {
  return ffi::Error::InvalidArgument("gossamer_attention: " + what);
}

bool TypeOf(ffi::DataType type, CacheType& cache) {
  if (type == ffi::F32) cache = CacheType::kFloat32;
  if (type == ffi::BF16) cache = CacheType::kBfloat16;
  if (type == ffi::S8) cache = CacheType::kInt8;
  return type == ffi::F32 || type == ffi::BF16 || type == ffi::S8;
}

using Sizes = std::vector<int64_t>;

template <class Buffer>
bool Is(const Buffer& buffer, const Sizes& sizes) {
  const auto d = buffer.dimensions();
  return d.size() == sizes.size() && std::equal(sizes.begin(), sizes.end(), d.begin());
}

bool AreScales(ffi::AnyBuffer buffer, const Sizes& sizes) {
  return buffer.element_type() == ffi::F32 && Is(buffer, sizes);
}

// A result is its operand's memory: of one that something else still needs XLA makes a copy first.
ffi::Error Share(ffi::AnyBuffer operand, ffi::AnyBuffer result) {
  if (operand.untyped_data() == result.untyped_data()) return ffi::Error::Success();
  return Refuse("a cache and its result are not the same memory");
}

ffi::Error Attend(ffi::ThreadPool pool, Heads queries, Heads keys, Heads values,
                  ffi::AnyBuffer key_cache, ffi::AnyBuffer value_cache, ffi::AnyBuffer key_scales,
                  ffi::AnyBuffer value_scales, Number length, Number layer,
                  ffi::Result<Heads> outputs, ffi::Result<ffi::AnyBuffer> new_keys,
                  ffi::Result<ffi::AnyBuffer> new_values,
                  ffi::Result<ffi::AnyBuffer> new_key_scales,
                  ffi::Result<ffi::AnyBuffer> new_value_scales) {
  const Target* target = Chosen();
  if (target == nullptr) return Refuse("GOSSAMER_TARGET names no target of this processor");
  Attention a = {};
  const auto room = key_cache.dimensions(), q = queries.dimensions();
  if (room.size() != 4 && room.size() != 5) {
    return Refuse("caches are [batch, heads, tokens, head size], perhaps of several layers");
  }
  if (!TypeOf(key_cache.element_type(), a.type)) {
    return Refuse("caches are float32, bfloat16 or int8");
  }
  const size_t lead = room.size() - 4;
  const int64_t layers = lead == 0 ? 1 : room[0], number = *layer.typed_data();
  if (number < 0 || number >= layers) return Refuse("there is no such layer in the caches");
  a.batch = room[lead], a.kv_heads = room[lead + 1], a.room = room[lead + 2];
  a.head_dim = room[lead + 3];
  a.heads = q[1];
  a.length = *length.typed_data();
  if (const char* why = WhyNot(a)) return Refuse(why);
  const bool scaled = a.type == CacheType::kInt8;
  const Sizes cache_sizes(room.begin(), room.end());
  Sizes scale_sizes(room.begin(), room.end() - 1);
  if (!scaled) scale_sizes.back() = 0;
  if (!Is(queries, {a.batch, a.heads, a.head_dim}) ||
      !Is(*outputs, {a.batch, a.heads, a.head_dim}) ||
      !Is(keys, {a.batch, a.kv_heads, a.head_dim}) ||
      !Is(values, {a.batch, a.kv_heads, a.head_dim}) || !Is(value_cache, cache_sizes) ||
      value_cache.element_type() != key_cache.element_type() ||
      !AreScales(key_scales, scale_sizes) || !AreScales(value_scales, scale_sizes)) {
    return Refuse("queries, keys, values and caches have sizes that do not belong together");
  }
  for (auto& error :
       {Share(key_cache, *new_keys), Share(value_cache, *new_values)}) {
    if (error.failure()) return error;
  }
  a.queries = queries.typed_data(), a.keys = keys.typed_data(), a.values = values.typed_data();
  const int64_t vectors = number * a.batch * a.kv_heads * a.room;
  const int64_t bytes_before = vectors * a.head_dim * ffi::ByteWidth(key_cache.element_type());
  a.key_cache = static_cast<uint8_t*>(new_keys->untyped_data()) + bytes_before;
  a.value_cache = static_cast<uint8_t*>(new_values->untyped_data()) + bytes_before;
  if (scaled) {
    a.key_scales = static_cast<float*>(new_key_scales->untyped_data()) + vectors;
    a.value_scales = static_cast<float*>(new_value_scales->untyped_data()) + vectors;
  }
  a.outputs = outputs->typed_data();
  const int64_t groups = a.batch * a.kv_heads;
  const int64_t bytes = 2 * groups * (a.length + 1) * a.head_dim * 4;
  const int64_t threads = bytes < kBytesWorthSharing ? 1 : pool.num_threads();
  ParallelFor(pool, groups, 1, threads, [&](int64_t first, int64_t last) {
    target->attend(a, first, last, Room<1>(a.scratch_bytes()));
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace gossamer

// Declared visible, since the macro does not say so and everything else is hidden.
extern "C" __attribute__((visibility("default"))) XLA_FFI_Error* gossamer_attention(
    XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(gossamer_attention, gossamer::Attend,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<gossamer::Heads>()
                                  .Arg<gossamer::Heads>()
                                  .Arg<gossamer::Heads>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<gossamer::Number>()
                                  .Arg<gossamer::Number>()
                                  .Ret<gossamer::Heads>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>());
