#include "attention-inl.h"
#include "peak-inl.h"
#include "product-inl.h"
#include "read-inl.h"
#include "simd_avx512.h"
#include "target.h"

namespace gossamer {
namespace {

bool Runs() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512vnni");
}

}  // namespace

const Target kAvx512 = {"avx512", Avx512::kInRegisters, Avx512::kExpands, Avx512::kByteTiles,
                        Avx512::kFloatTiles, Runs, Prepare<Avx512>, Multiply<Avx512>,
                        Attend<Avx512>, ReadMemory<Avx512>, MultiplyAdds<Avx512>};

}  // namespace gossamer
