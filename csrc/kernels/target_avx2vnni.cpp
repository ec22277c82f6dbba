#define GOSSAMER_VNNI
#include <cpuid.h>

#include "attention-inl.h"
#include "peak-inl.h"
#include "product-inl.h"
#include "read-inl.h"
#include "simd_avx2.h"
#include "target.h"

namespace gossamer {
namespace {

// CPUID leaf 7.1, EAX bit 4; compilers disagree on its name.
bool HasAvxVnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 16) != 0;
}

bool Runs() {
  return __builtin_cpu_supports("avx2") && HasAvxVnni();
}

}  // namespace

const Target kAvx2Vnni = {"avx2vnni", Avx2::kInRegisters, Avx2::kExpands, Avx2::kByteTiles,
                          Avx2::kFloatTiles, Runs, Prepare<Avx2>, Multiply<Avx2>,
                          Attend<Avx2>, ReadMemory<Avx2>, MultiplyAdds<Avx2>};

}  // namespace gossamer
