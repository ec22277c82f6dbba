// The targets, one a file; which are compiled in depends on the processor and the compiler.
#pragma once

#include "product.h"

namespace gossamer {

extern const Target kAvx512;
extern const Target kAvx2Vnni;
extern const Target kAvx2;
extern const Target kNeon;
extern const Target kPortable;

}  // namespace gossamer
