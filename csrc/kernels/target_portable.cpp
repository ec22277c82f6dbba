#include "attention-inl.h"
#include "peak-inl.h"
#include "product-inl.h"
#include "read-inl.h"
#include "simd_portable.h"
#include "target.h"

namespace gossamer {
namespace {

bool Runs() {
  return true;
}

}  // namespace

const Target kPortable = {"portable", Portable::kInRegisters, Portable::kExpands,
                          Portable::kByteTiles, Portable::kFloatTiles, Runs, Prepare<Portable>,
                          Multiply<Portable>, Attend<Portable>, ReadMemory<Portable>,
                          MultiplyAdds<Portable>};

}  // namespace gossamer
