#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "attention-inl.h"
#include "peak-inl.h"
#include "product-inl.h"
#include "read-inl.h"
#include "simd_neon.h"
#include "target.h"

namespace gossamer {
namespace {

bool Runs() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return true;  // every 64-bit Arm that other systems run on has the dot product
#endif
}

}  // namespace

const Target kNeon = {"neon", Neon::kInRegisters, Neon::kExpands, Neon::kByteTiles,
                      Neon::kFloatTiles, Runs, Prepare<Neon>, Multiply<Neon>,
                      Attend<Neon>, ReadMemory<Neon>, MultiplyAdds<Neon>};

}  // namespace gossamer
