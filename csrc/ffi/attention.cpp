// The XLA handlers of csrc/kernels/attention.h: they check every buffer and share head groups among
// threads. The caches are updated in place: their results are the operands' memory.
#include "../kernels/attention.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "../kernels/product.h"
#include "chosen.h"
#include "parallel.h"
#include "room.h"
#include "xla/ffi/api/ffi.h"

namespace gossamer {
namespace {

namespace ffi = xla::ffi;

using Heads = ffi::Buffer<ffi::F32, 3>;
using Scales = ffi::Buffer<ffi::F32, 3>;
using Length = ffi::Buffer<ffi::S32, 0>;

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

template <class Buffer>
bool Is(const Buffer& buffer, std::initializer_list<int64_t> sizes) {
  const auto d = buffer.dimensions();
  return d.size() == sizes.size() && std::equal(sizes.begin(), sizes.end(), d.begin());
}

// A result is its operand's memory: of one that something else still needs XLA makes a copy first.
ffi::Error Share(ffi::AnyBuffer operand, ffi::AnyBuffer result) {
  if (operand.untyped_data() == result.untyped_data()) return ffi::Error::Success();
  return Refuse("a cache and its result are not the same memory");
}

ffi::Error Attend(ffi::ThreadPool pool, Heads queries, Heads keys, Heads values,
                  ffi::AnyBuffer key_cache, ffi::AnyBuffer value_cache, Scales key_scales,
                  Scales value_scales, Length length, ffi::Result<Heads> outputs,
                  ffi::Result<ffi::AnyBuffer> new_keys, ffi::Result<ffi::AnyBuffer> new_values,
                  ffi::Result<Scales> new_key_scales, ffi::Result<Scales> new_value_scales) {
  const Target* target = Chosen();
  if (target == nullptr) return Refuse("GOSSAMER_TARGET names no target of this processor");
  Attention a = {};
  const auto room = key_cache.dimensions(), q = queries.dimensions();
  if (room.size() != 4) return Refuse("caches are [batch, heads, tokens, head size]");
  if (!TypeOf(key_cache.element_type(), a.type)) {
    return Refuse("caches are float32, bfloat16 or int8");
  }
  a.batch = room[0], a.kv_heads = room[1], a.room = room[2], a.head_dim = room[3];
  a.heads = q[1];
  a.length = *length.typed_data();
  if (const char* why = WhyNot(a)) return Refuse(why);
  const bool scaled = a.type == CacheType::kInt8;
  const auto scale_shape = {a.batch, a.kv_heads, scaled ? a.room : int64_t{0}};
  if (!Is(queries, {a.batch, a.heads, a.head_dim}) ||
      !Is(*outputs, {a.batch, a.heads, a.head_dim}) ||
      !Is(keys, {a.batch, a.kv_heads, a.head_dim}) ||
      !Is(values, {a.batch, a.kv_heads, a.head_dim}) ||
      !Is(value_cache, {a.batch, a.kv_heads, a.room, a.head_dim}) ||
      value_cache.element_type() != key_cache.element_type() || !Is(key_scales, scale_shape) ||
      !Is(value_scales, scale_shape)) {
    return Refuse("queries, keys, values and caches have sizes that do not belong together");
  }
  for (auto& error :
       {Share(key_cache, *new_keys), Share(value_cache, *new_values)}) {
    if (error.failure()) return error;
  }
  a.queries = queries.typed_data(), a.keys = keys.typed_data(), a.values = values.typed_data();
  a.key_cache = new_keys->untyped_data(), a.value_cache = new_values->untyped_data();
  a.key_scales = scaled ? new_key_scales->typed_data() : nullptr;
  a.value_scales = scaled ? new_value_scales->typed_data() : nullptr;
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
                                  .Arg<gossamer::Scales>()
                                  .Arg<gossamer::Scales>()
                                  .Arg<gossamer::Length>()
                                  .Ret<gossamer::Heads>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<gossamer::Scales>()
                                  .Ret<gossamer::Scales>());
