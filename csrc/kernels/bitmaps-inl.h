// A few rows of quantized activations times 4:8 and 8:16 with bitmaps: kept codes move to where the
// bitmap has bits in registers, where an instruction moves 64 bytes by as many bits.
//
// A vector holds all kM elements of a group for 64 / kM lanes, not four of 16 lanes: then its codes
// are 32 bytes side by side. Its sums are kM / 4 a lane, added up where a group of scales ends.
#pragma once

#include <cstdint>

#include "codes-inl.h"
#include "packed.h"
#include "product.h"
#include "tile-inl.h"

namespace gossamer {
namespace {

// Elements of a word of bitmaps, and the kept codes among them in windows.
constexpr int kMapElements = 32;
constexpr int kMapWindows = kMapElements / 2 / 4;

// Vectors that the elements of a group are of all lanes.
template <int kM>
constexpr int kMapParts = kLanes * kM / kVectorBytes;

// Codes of group `kGroup` of a word of bitmaps, in the order of lanes: in part `kPart` of kMapParts
// those of one half, whose fields are where `MapField` says.
template <class S, int kCodes, int kM, int kGroup, int kPart>
GOSSAMER_INLINE typename S::Bytes KeptCodes(const typename S::Bytes* words) {
  constexpr int kBits = kBitsOf<kCodes>;
  constexpr int kWindows = 8 / kBits;  // of a word of codes
  if constexpr (kM == 8) {
    return words[kGroup / kWindows];
  } else {
    constexpr int kWindow = 2 * kGroup;
    const auto first = words[kWindow / kWindows];
    const auto second = kBits == 8 ? words[kWindow + 1] : S::template ShiftRight<kBits>(first);
    return S::template ZipLanes<kPart / 2>(first, second);
  }
}

template <int kCodes, int kM, int kGroup>
constexpr int MapField = kM == 8 ? kGroup % (8 / kBitsOf<kCodes>) : 0;

// Sums of parts to one a lane: neighbours are added until no part has more.
template <class S, int kParts>
GOSSAMER_INLINE typename S::Sums SumParts(const typename S::Sums (&parts)[kParts]) {
  if constexpr (kParts == 1) {
    return parts[0];
  } else {
    typename S::Sums sums[kParts / 2];
    Unroll<kParts / 2>([&](auto i) GOSSAMER_STEP {
      sums[i] = S::AddNeighbours(parts[2 * i], parts[2 * i + 1]);
    });
    return SumParts<S>(sums);
  }
}

// Codes of 8 or 4 bits, groups of whole words of bitmaps.
template <class S, int kCodes, int kM, int kRows>
void BitmapTile(const Product& p, int64_t tile, int64_t first_row, const Row* rows) {
  using Sums = typename S::Sums;
  constexpr int kParts = kMapParts<kM>;
  // At which fields are summed, see Combine.
  constexpr int kScales = kM == 8 ? kPartialSums<S, kCodes> : 1;
  constexpr int kWords = kMapWindows * kBitsOf<kCodes> / 8;
  const Packed& k = p.kernel;
  const int64_t words = k.group_size() / kMapElements;
  const uint8_t* word = k.values + tile * k.value_bytes;
  const uint8_t* map = k.indices + tile * k.index_bytes;
  const CodeMasks<S, kCodes> code_masks(k);
  RowTotals<S, kRows> totals(k, rows);
  for (int64_t group = 0; group < k.groups; ++group) {
    Sums sums[kRows][kScales][kParts];
    Unroll<kRows * kScales * kParts>([&](auto i) GOSSAMER_STEP {
      sums[i / (kScales * kParts)][i / kParts % kScales][i % kParts] = S::Zero();
    });
    for (int64_t w = 0; w < words; ++w, map += kVectorBytes, word += kWords * kVectorBytes) {
      alignas(kVectorBytes) uint64_t masks[8];
      S::template StoreMasks<kM>(masks, LoadStream<S>(map));
      typename S::Bytes fields[kWords];
      LoadWords<S>(word, fields);
      Unroll<kMapElements / kM * kParts>([&](auto i) GOSSAMER_STEP {
        constexpr int kGroup = i / kParts, kPart = i % kParts;
        constexpr int kField = MapField<kCodes, kM, kGroup>;
        const auto kept = KeptCodes<S, kCodes, kM, kGroup, kPart>(fields);
        const auto spread = S::template Expand<kPart % 2>(masks[i], kept);
        const auto codes = Codes<S, kCodes, kField>(spread, code_masks);
        Unroll<kRows>([&](auto r) GOSSAMER_STEP {
          Sums& sum = sums[r][kField % kScales][kPart];
          sum = DotCodes<S, kCodes>(sum, codes, S::template Repeat<kM>(totals.x[r] + kM * kGroup));
        });
      });
      totals.Skip(kMapElements);
    }
    const auto scales = LoadScales<S>(k, tile, group);
    const Sums offset = GroupShift<S>(k, tile, group);
    Unroll<kRows>([&](auto r) GOSSAMER_STEP {
      Sums parts[kParts];
      Unroll<kParts>([&](auto i) GOSSAMER_STEP {
        parts[i] = sums[r][0][i];
        Unroll<kScales - 1>([&](auto s) GOSSAMER_STEP {
          parts[i] = S::Add(parts[i], S::ShiftSums(sums[r][s + 1][i], kBitsOf<kCodes> * (s + 1)));
        });
      });
      const Sums shift = S::Multiply(offset, S::FillSums(rows[r].sums()[group]));
      AddScaled<S>(totals.y[r], S::Subtract(SumParts<S>(parts), shift), scales);
    });
  }
  totals.Write(p, tile, first_row, rows);
}

}  // namespace
}  // namespace gossamer
