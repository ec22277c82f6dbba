#include "product.h"

#include "prepared.h"

namespace gossamer {
namespace {

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

bool PowerOfTwo(int bits) { return bits > 0 && (bits & (bits - 1)) == 0; }

// Whether windows of four kept codes choose from tables of at most 64 activations, and no window
// runs into the next group.
bool HasTables(const Packed& k) {
  return k.sparse() && k.place_bits() > 0 && 4 % k.n == 0 && WindowSpan(k) <= kWidestTable &&
         k.group_size() % WindowSpan(k) == 0;
}

}  // namespace

Method Product::method() const {
  const Packed& k = kernel;
  if (target->in_registers && !floats() && rows > kFewRows && HasTables(k)) return Method::kKept;
  if (!target->in_registers || rows > kFewRows || !PowerOfTwo(k.bits)) return Method::kPanel;
  const int64_t kept_in_group = k.group_size() / k.m * k.n;
  if (!k.sparse()) {
    return kept_in_group % (32 / k.bits) == 0 ? Method::kDense : Method::kPanel;
  }
  const int place_bits = k.place_bits();
  if (place_bits == 0) {
    const bool spread = target->expands && k.bits > 2 && 2 * k.n == k.m && k.m >= 8;
    return spread && k.group_size() % 32 == 0 ? Method::kBitmap : Method::kPanel;
  }
  const bool looked_up = PowerOfTwo(place_bits) && k.group_size() % k.m == 0 && 4 % k.n == 0 &&
                         WindowSpan(k) <= kTableBytes;
  const int64_t step = looked_up ? PlacesInWord(k) : 0;
  const bool whole = looked_up && kept_in_group % step == 0 && step % (32 / k.bits) == 0;
  return whole ? Method::kPlaces : Method::kPanel;
}

int64_t Product::row_bytes() const {
  const Packed& k = kernel;
  if (floats()) return RoundUp(PanelWindows(k) * 4 * 4, kVectorBytes);
  int64_t codes = PanelWindows(k) * 4;
  if (method() == Method::kDense || method() == Method::kBitmap) codes = k.in;
  if (method() == Method::kPlaces) codes = k.kept() / 4 * kTableBytes + k.in + kTableBytes;
  if (method() == Method::kKept) codes = k.in + kWidestTable;
  return RoundUp(kRowHeader + k.groups * 4, kVectorBytes) + RoundUp(codes, kVectorBytes);
}

int64_t Product::scratch_bytes() const {
  const int64_t tiles = tiles_at_once();
  if (floats()) return FloatScratch(kernel, rows, tiles);
  if (method() == Method::kKept) return tiles * KeptPanelBytes(kernel);
  return method() == Method::kPanel ? PanelScratch(kernel, tiles) : 0;
}

int64_t Product::tiles_at_once() const {
  if (floats()) return rows > kFewRows ? target->float_tiles : 1;
  const bool panels = method() == Method::kPanel || method() == Method::kKept;
  return panels && rows > 1 ? target->byte_tiles : 1;
}

const char* WhyNot(const Product& p) {
  const Packed& k = p.kernel;
  // Partial sums of unsigned codes up to 15 * 16 times 127 stay below 2^31 within this.
  constexpr int64_t kLongestGroup = 1 << 16;
  if (k.bits < 2 || k.bits > 8) return "codes have 2 to 8 bits";
  if (!p.floats() && (p.activation_bits < 2 || p.activation_bits > 8)) {
    return "activations have 2 to 8 bits";
  }
  if (p.floats() && p.real == Real::kInt8) return "codes are no floats";
  if (k.in < 1 || k.out < 1 || p.rows < 1) return "an axis is empty";
  if (k.groups < 1 || k.in % k.groups != 0) return "the groups do not divide the reduction axis";
  if (k.group_size() > kLongestGroup) return "a group is longer than 65536 elements";
  if (k.n < 1 || k.m < k.n || k.m > 16 || k.in % k.m != 0) return "the pattern is none of N:M";
  if (k.m & (k.m - 1)) return "M is no power of two";
  if (k.sparse() && k.zeros != nullptr) return "sparse kernels have no zero points";
  if (k.book == nullptr) return nullptr;
  if (k.bits != 4) return "only codes of 4 bits are looked up in a codebook";
  if (k.zeros != nullptr) return "kernels with a codebook have no zero points";
  if (k.book[0] != 0) return "the first code of a codebook stands for 0";
  return nullptr;
}

}  // namespace gossamer
