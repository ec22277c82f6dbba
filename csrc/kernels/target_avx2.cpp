#include "attention-inl.h"
#include "peak-inl.h"
#include "product-inl.h"
#include "read-inl.h"
#include "simd_avx2.h"
#include "target.h"

namespace gossamer {
namespace {

bool Runs() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

}  // namespace

const Target kAvx2 = {"avx2", Avx2::kInRegisters, Avx2::kExpands, Avx2::kByteTiles,
                      Avx2::kFloatTiles, Runs, Prepare<Avx2>, Multiply<Avx2>,
                      Attend<Avx2>, ReadMemory<Avx2>, MultiplyAdds<Avx2>};

}  // namespace gossamer
