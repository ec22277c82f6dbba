#pragma once

#include "../kernels/product.h"

namespace gossamer {

// The target that GOSSAMER_TARGET names, or the fastest; nullptr if this processor lacks it.
const Target* Chosen();

}  // namespace gossamer
