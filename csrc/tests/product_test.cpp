// Every target against a plain loop, over patterns, widths, scales, groups, rows and odd shapes.
//
// The kernels' planes and rows are allocated to the byte, so that AddressSanitizer sees any read
// past them. Exits with 1 at the first wrong number.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../kernels/product.h"

namespace {

using gossamer::kLanes;
using gossamer::Packed;
using gossamer::Product;
using gossamer::Real;
using gossamer::ScaleType;

std::mt19937 random_bits(7);

int Uniform(int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random_bits);
}

// A buffer at a multiple of 64 that ends where it ends.
struct Buffer {
  explicit Buffer(size_t bytes) : owner(std::make_unique<uint8_t[]>(bytes + 64)) {
    uint8_t* end = owner.get() + bytes + 64;
    begin = end - bytes;
    begin -= reinterpret_cast<uintptr_t>(begin) % 64;
  }
  std::unique_ptr<uint8_t[]> owner;
  uint8_t* begin;
};

// Fields of a lane to bytes, as docs/packed-layout.md has it; `unit` bytes make a word.
void WriteFields(const std::vector<std::vector<uint32_t>>& lanes, int bits, bool bitmap,
                 std::vector<uint8_t>& plane) {
  for (int width = bitmap ? bits : 8, low = 0; width > 0; width /= 2) {
    if (!bitmap && !(bits & width)) continue;
    const int64_t count = static_cast<int64_t>(lanes[0].size());
    const int64_t bytes = count * width / 8, words = bytes / 4, rest = bytes % 4;
    const size_t start = plane.size();
    plane.resize(start + bytes * kLanes);
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int64_t f = 0; f < count; ++f) {
        const uint32_t field = lanes[lane][f] >> low & ((1u << width) - 1);
        for (int bit = 0; bit < width; ++bit) {
          int64_t byte, at;  // of the lane
          if (bitmap) {
            byte = (f * width + bit) / 8, at = (f * width + bit) % 8;
          } else {
            const int64_t in_words = words * 32 / width;
            const int64_t first = f < in_words ? f / (32 / width) * (32 / width) : in_words;
            const int64_t unit = f < in_words ? 4 : rest;
            byte = first * width / 8 + (f - first) % unit;
            at = width * ((f - first) / unit) + bit;
          }
          const int64_t place = byte < words * 4 ? byte / 4 * 64 + lane * 4 + byte % 4
                                                 : words * 64 + lane * rest + byte - words * 4;
          plane[start + place] |= (field >> bit & 1) << at;
        }
      }
    }
    low += width;
    if (bitmap) return;
  }
}

struct Shape {
  int64_t in, out, group;
  int bits, n, m;
  ScaleType scale;
  bool zeros;
  int64_t rows;
  Real real;
  int activation_bits;
  bool book;

  std::string Text() const {
    char text[200];
    std::snprintf(text, sizeof text,
                  "[%ld, %ld], groups of %ld, %d bits, %d:%d, scale type %d, zeros %d, %ld rows, "
                  "real %d, activations of %d bits (0: floats), codebook %d",
                  long(in), long(out), long(group), bits, n, m, int(scale), zeros, long(rows),
                  int(real), activation_bits, book);
    return text;
  }
};

struct Case {
  std::vector<uint8_t> values, indices, scales, zeros, x;
  std::vector<int> dense;        // [tiles * 16, in]
  std::vector<double> scale_of;  // [tiles * 16, groups]
  std::vector<int> zero_of;
  std::vector<int8_t> book;
};

void AddScale(ScaleType type, Case& c) {
  // Powers of two times small numbers, which all but E8M0 hold exactly.
  const double value = std::ldexp(type == ScaleType::kE8m0 ? 1 : Uniform(8, 15), Uniform(-8, -5));
  c.scale_of.push_back(value);
  const float single = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &single, 4);
  if (type == ScaleType::kFloat32) {
    for (int i = 0; i < 4; ++i) c.scales.push_back(bits >> (8 * i));
  } else if (type == ScaleType::kBfloat16) {
    for (int i = 2; i < 4; ++i) c.scales.push_back(bits >> (8 * i));
  } else if (type == ScaleType::kE8m0) {
    c.scales.push_back(bits >> 23);
  } else {
    c.scales.push_back(((bits >> 23) - 120) << 3 | (bits >> 20 & 7));
  }
}

void AddTile(const Shape& s, Case& c) {
  std::vector<std::vector<uint32_t>> codes(kLanes), places(kLanes), maps(kLanes);
  const int low = -(1 << (s.bits - 1)), high = -low - 1;
  int place_bits = 0;
  while ((1 << place_bits) < s.m) ++place_bits;
  const bool bitmap = s.n * place_bits > s.m;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int64_t first = 0; first < s.in; first += s.m) {
      std::vector<int> order(s.m);
      for (int i = 0; i < s.m; ++i) order[i] = i;
      std::shuffle(order.begin(), order.end(), random_bits);
      std::sort(order.begin(), order.begin() + s.n);
      std::vector<int> group(s.m);
      uint32_t map = 0;
      for (int i = 0; i < s.n; ++i) {
        // Extremes more often than chance has them.
        const int kind = Uniform(0, 3);
        const int code = kind == 0 ? low : kind == 1 ? high : Uniform(low, high);
        const uint32_t field = uint32_t(code) & ((1u << s.bits) - 1);
        group[order[i]] = s.book ? c.book[field] : code;
        codes[lane].push_back(field);
        places[lane].push_back(order[i]);
        map |= 1u << order[i];
      }
      maps[lane].push_back(map);
      c.dense.insert(c.dense.end(), group.begin(), group.end());
    }
  }
  WriteFields(codes, s.bits, false, c.values);
  if (s.n == s.m) return;
  if (bitmap) {
    WriteFields(maps, s.m, true, c.indices);
  } else {
    WriteFields(places, place_bits, false, c.indices);
  }
}

// One, a few, or so many that there is a kernel of its own for them.
int64_t SomeRows() {
  const int kind = Uniform(0, 2);
  if (kind == 0) return 1;
  return kind == 1 ? Uniform(2, 18) : Uniform(17, 30);
}

Case MakeCase(const Shape& s) {
  Case c;
  const int64_t tiles = (s.out + kLanes - 1) / kLanes, groups = s.in / s.group;
  for (int i = 0; s.book && i < 16; ++i) c.book.push_back(i ? Uniform(-128, 127) : 0);
  for (int64_t t = 0; t < tiles; ++t) {
    AddTile(s, c);
    for (int64_t i = 0; i < groups * kLanes; ++i) {
      AddScale(s.scale, c);
      c.zero_of.push_back(s.zeros ? Uniform(-128, 127) : 0);
      if (s.zeros) c.zeros.push_back(static_cast<uint8_t>(c.zero_of.back()));
    }
  }
  const int kind = Uniform(0, 4);
  for (int64_t i = 0; i < s.rows * s.in; ++i) {
    float value = kind == 0 ? 0.0f : std::normal_distribution<float>()(random_bits);
    if (kind == 1) value = Uniform(0, 1) ? 1.0f : -1.0f;
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (s.real == Real::kInt8) {
      c.x.push_back(static_cast<uint8_t>(kind == 1 ? Uniform(0, 1) * 254 - 127 : Uniform(-127, 127)));
      continue;
    }
    const int size = s.real == Real::kFloat32 ? 4 : 2;
    for (int b = 4 - size; b < 4; ++b) c.x.push_back(bits >> (8 * b));
  }
  return c;
}

float Read(Real real, const uint8_t* at, int64_t index) {
  uint32_t bits = 0;
  if (real == Real::kInt8) return static_cast<int8_t>(at[index]);
  if (real == Real::kFloat32) {
    std::memcpy(&bits, at + 4 * index, 4);
  } else {
    uint16_t half;
    std::memcpy(&half, at + 2 * index, 2);
    bits = uint32_t(half) << 16;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

Buffer Copy(const std::vector<uint8_t>& bytes) {
  Buffer b(bytes.size());
  std::copy(bytes.begin(), bytes.end(), b.begin);
  return b;
}

// The product and, beside it, the sum of the sizes of what is rounded: of groups, whose sums of
// integers are exact, or of all terms.
void Reference(const Shape& s, const Case& c, std::vector<double>& y, std::vector<double>& size) {
  const int qmax = s.activation_bits ? (1 << (s.activation_bits - 1)) - 1 : 1;
  const int64_t groups = s.in / s.group;
  for (int64_t r = 0; r < s.rows; ++r) {
    float absmax = 0;
    for (int64_t i = 0; i < s.in; ++i) {
      absmax = std::max(absmax, std::fabs(Read(s.real, c.x.data(), r * s.in + i)));
    }
    const bool codes = s.real == Real::kInt8;
    const float scale =
        codes || absmax == 0 ? 1.0f : absmax * (1.0f / static_cast<float>(qmax));
    const float inverse = 1.0f / scale;
    std::vector<int> q(s.in);
    for (int64_t i = 0; i < s.in && s.activation_bits > 0; ++i) {
      const float scaled = Read(s.real, c.x.data(), r * s.in + i) * inverse;
      q[i] = codes ? static_cast<int8_t>(c.x[r * s.in + i])
                   : std::min(std::max(static_cast<int>(std::nearbyint(scaled)), -qmax), qmax);
    }
    for (int64_t o = 0; o < s.out; ++o) {
      double sum = 0, total = 0;
      for (int64_t g = 0; g < groups; ++g) {
        double exact = 0, terms = 0;
        const int64_t at = (o / kLanes * groups + g) * kLanes + o % kLanes;
        for (int64_t i = g * s.group; i < (g + 1) * s.group; ++i) {
          const double x = s.activation_bits ? q[i] : Read(s.real, c.x.data(), r * s.in + i);
          exact += x * (c.dense[o * s.in + i] - c.zero_of[at]);
          terms += std::fabs(x * (c.dense[o * s.in + i] - c.zero_of[at]));
        }
        const double unit = c.scale_of[at] * (s.activation_bits ? scale : 1.0f);
        sum += exact * unit;
        total += (s.activation_bits ? std::fabs(exact) : terms) * unit;
      }
      y.push_back(sum);
      size.push_back(total);
    }
  }
}

std::vector<uint8_t> Run(const gossamer::Target& target, const Shape& s, const Case& c) {
  const Buffer values = Copy(c.values), indices = Copy(c.indices), scales = Copy(c.scales),
               zeros = Copy(c.zeros), x = Copy(c.x);
  const int result_bytes = s.real == Real::kBfloat16 ? 2 : 4;
  const Buffer y(s.rows * s.out * result_bytes);
  Product p;
  const int64_t tiles = (s.out + kLanes - 1) / kLanes;
  p.kernel = {values.begin,
              s.n == s.m ? nullptr : indices.begin,
              scales.begin,
              s.zeros ? reinterpret_cast<const int8_t*>(zeros.begin) : nullptr,
              s.book ? c.book.data() : nullptr,
              int64_t(c.values.size()) / tiles,
              int64_t(c.indices.size()) / tiles,
              s.in,
              s.out,
              s.in / s.group,
              s.scale,
              s.bits,
              s.n,
              s.m};
  p.x = x.begin;
  p.y = y.begin;
  p.rows = s.rows;
  p.real = s.real;
  p.activation_bits = s.activation_bits;
  p.target = &target;
  if (const char* why = gossamer::WhyNot(p)) {
    std::printf("refused: %s: %s\n", s.Text().c_str(), why);
    std::exit(1);
  }
  const Buffer prepared(p.rows * p.row_bytes()), scratch(p.scratch_bytes());
  for (int64_t r = 0; r < p.rows; ++r) target.prepare(p, r, prepared.begin + r * p.row_bytes());
  const int64_t middle = tiles / 2;  // two calls, as threads make them
  target.multiply(p, prepared.begin, 0, middle, scratch.begin);
  target.multiply(p, prepared.begin, middle, tiles, scratch.begin);
  return std::vector<uint8_t>(y.begin, y.begin + s.rows * s.out * result_bytes);
}

// Each group is rounded when it is converted, scaled and added, the sum once more: float32 has
// 2^-24. With floats every term is, and every weight may be when it is scaled.
void Check(const Shape& s) {
  const Case c = MakeCase(s);
  std::vector<double> want, size;
  Reference(s, c, want, size);
  const double groups = static_cast<double>(s.in) / s.group;
  const double roundings = s.activation_bits ? groups + 3 : s.in + groups + 3;
  const double unit = std::ldexp(roundings, -24) + (s.real == Real::kBfloat16 ? 1.0 / 256 : 0);
  std::vector<uint8_t> first;
  for (const auto* const* t = gossamer::AllTargets(); *t != nullptr; ++t) {
    if (!(*t)->runs()) continue;
    const auto got = Run(**t, s, c);
    for (size_t i = 0; i < want.size(); ++i) {
      const double value = Read(s.real == Real::kBfloat16 ? s.real : Real::kFloat32, got.data(), i);
      if (!(std::fabs(value - want[i]) <= unit * size[i])) {
        std::printf("%s: %s: output %zu is %.9g, not %.9g\n", (*t)->name, s.Text().c_str(), i,
                    value, want[i]);
        std::exit(1);
      }
    }
    if (first.empty()) first = got;
    if (s.activation_bits > 0 && got != first) {
      std::printf("%s differs from the first target: %s\n", (*t)->name, s.Text().c_str());
      std::exit(1);
    }
  }
}

// Shapes whose fields fill whole bytes in every plane.
bool Packable(const Shape& s) {
  if (s.in % s.m || s.in % s.group) return false;
  const int64_t kept = s.in / s.m * s.n;
  int place_bits = 0;
  while ((1 << place_bits) < s.m) ++place_bits;
  const auto whole = [](int64_t count, int bits) { return count * (bits & -bits) % 8 == 0; };
  if (!whole(kept, s.bits)) return false;
  if (s.n == s.m) return true;
  return s.n * place_bits > s.m ? s.in % 8 == 0 : whole(kept, place_bits);
}

}  // namespace

int main() {
  const int patterns[][2] = {{1, 1},  {1, 2},  {1, 4},  {2, 4},  {1, 8},   {2, 8},  {4, 8},
                             {3, 8},  {1, 16}, {2, 16}, {4, 16}, {8, 16},  {3, 16}, {3, 4},
                             {5, 8},  {6, 8},  {7, 8},  {5, 16}, {11, 16}, {12, 16}};
  int64_t done = 0;
  for (const auto& pattern : patterns) {
    for (int bits = 2; bits <= 8; ++bits) {
      for (int round = 0; round < (bits == 4 ? 80 : 40); ++round) {
        const int m = pattern[1];
        const int64_t groups = Uniform(1, 4);
        const int64_t group = round % 2 ? 64 * Uniform(1, 2) : Uniform(1, 9) * (round % 4 ? m : 1);
        const bool book = bits == 4 && Uniform(0, 1);
        const bool zeros = m == 1 && !book && Uniform(0, 1);
        const Real real = static_cast<Real>(Uniform(0, 2));
        const int activation_bits = Uniform(0, 2) ? Uniform(0, 1) * 8 : Uniform(2, 8);
        const Shape s{groups * group,
                      Uniform(1, 70),
                      group,
                      bits,
                      pattern[0],
                      m,
                      static_cast<ScaleType>(Uniform(0, 3)),
                      zeros,
                      SomeRows(),
                      real,
                      real == Real::kInt8 ? 8 : activation_bits,
                      book};
        if (!Packable(s)) continue;
        Check(s);
        ++done;
      }
    }
  }
  // Long rows, whose tables are shared by two windows each.
  for (int n = 1; n <= 2; ++n) {
    for (int bits : {8, 4, 2}) {
      for (int64_t rows : {1, 5}) {
        Check({72 * 64, 20, 64, bits, n, 2 * n, ScaleType::kBfloat16, false, rows, Real::kFloat32,
               8, bits == 4 && rows == 1});
        ++done;
      }
    }
  }
  std::printf("%ld products are right on", long(done));
  for (const auto* const* t = gossamer::AllTargets(); *t != nullptr; ++t) {
    std::printf(" %s%s", (*t)->name, (*t)->runs() ? "" : " (not run)");
  }
  std::printf("\n");
}
