// Many rows of quantized activations times tiles of kept codes: codes and their places are unpacked
// to bytes, the activations that a window of four codes chooses from are the table of a byte
// shuffle. Only what is kept is multiplied.
#pragma once

#include <cstdint>

#include "packed.h"
#include "prepared.h"
#include "product.h"
#include "tile-inl.h"
#include "unpack-inl.h"

namespace gossamer {
namespace {

// A tile as vectors of 64 bytes: signed codes, then places, a window each; then for each group
// what the offset of its activations added up to.
struct KeptPanel {
  uint8_t* codes;
  uint8_t* places;
  uint8_t* shifts;

  GOSSAMER_INLINE KeptPanel(const Packed& k, uint8_t* scratch, int64_t tile)
      : codes(scratch + tile * KeptPanelBytes(k)),
        places(codes + KeptWindows(k) * kVectorBytes),
        shifts(places + KeptWindows(k) * kVectorBytes) {}
};

// Unsigned codes to two's complement, and what they are worth times the activations' offset.
template <class S>
void SignCodes(const Packed& k, const KeptPanel& panel) {
  const int64_t windows = KeptWindows(k) / k.groups;
  const auto offset = S::Fill(Offset<S>(k.byte_bits()));
  const auto shift = S::FillSums(-S::kActivationOffset);
  uint8_t* codes = panel.codes;
  for (int64_t g = 0; g < k.groups; ++g) {
    auto sums = S::Zero();
    for (int64_t w = 0; w < windows; ++w, codes += kVectorBytes) {
      const auto code = S::SubtractBytes(S::Load(codes), offset);
      S::Store(codes, code);
      sums = S::DotSmall(sums, S::Fill(1), code);
    }
    S::Store(panel.shifts + g * kVectorBytes, S::ToBytes(S::Multiply(sums, shift)));
  }
}

// Places in a group of m to places in the table of their window.
template <class S>
void PlacesInTable(const Packed& k, uint8_t* places) {
  uint32_t base = 0;
  for (int j = 0; j < 4; ++j) base |= static_cast<uint32_t>(j / k.n * k.m) << (8 * j);
  const auto add = S::FillWord(base);
  const int64_t windows = KeptWindows(k);
  for (int64_t w = 0; w < windows; ++w, places += kVectorBytes) {
    S::Store(places, S::MaskOr(S::Load(places), S::Fill(0xff), add));
  }
}

template <class S>
void UnpackKept(const Packed& k, int64_t tile, const KeptPanel& panel) {
  const int flip = k.book == nullptr ? Offset<S>(k.bits) : 0;
  FieldWindows<S>(k.values + tile * k.value_bytes, k.kept(), k.bits, flip, panel.codes);
  if (k.book != nullptr) LookUp<S>(k.book, panel.codes, KeptWindows(k));
  FieldWindows<S>(k.indices + tile * k.index_bytes, k.kept(), k.place_bits(), 0, panel.places);
  SignCodes<S>(k, panel);
  PlacesInTable<S>(k, panel.places);
}

// Multiplies kTiles panels by kRows rows. Tables have kTable bytes. Tried on a Zen 4, 512 rows and
// [2048, 2048]: as many groups for all rows before the next as fit into 16 kB, with the sums of all
// rows in memory; a tenth slower.
template <class S, int kTiles, int kTable, bool kSmall, int kRows>
void KeptBlock(const Product& p, int64_t tile, const KeptPanel& panel, int64_t first_row,
               const Row* rows) {
  using Bytes = typename S::Bytes;
  const Packed& k = p.kernel;
  const int64_t windows = KeptWindows(k) / k.groups, panel_bytes = KeptPanelBytes(k);
  const int64_t span = WindowSpan(k);
  const uint8_t *codes = panel.codes, *places = panel.places, *shifts = panel.shifts;
  const int8_t* x[kRows];
  Unroll<kRows>([&](auto r) GOSSAMER_STEP { x[r] = rows[r].codes(k); });
  BlockTotals<S, kTiles, kRows> totals;
  for (int64_t group = 0; group < k.groups; ++group, shifts += kVectorBytes) {
    typename S::Sums part[kTiles][kRows];
    Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
      const auto shift = S::FromBytes(S::Load(shifts + t * panel_bytes));
      Unroll<kRows>([&](auto r) GOSSAMER_STEP { part[t][r] = shift; });
    });
    for (int64_t w = 0; w < windows; ++w, codes += kVectorBytes, places += kVectorBytes) {
      Bytes code[kTiles], place[kTiles];
      Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
        code[t] = S::Load(codes + t * panel_bytes);
        place[t] = S::Load(places + t * panel_bytes);
      });
      Unroll<kRows>([&](auto r) GOSSAMER_STEP {
        const auto table = S::template WideTable<kTable>(x[r]);
        x[r] += span;
        Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
          const Bytes chosen = S::template WideLookup<kTable>(table, place[t]);
          part[t][r] = kSmall ? S::DotSmall(part[t][r], chosen, code[t])
                              : S::Dot(part[t][r], chosen, code[t]);
        });
      });
    }
    totals.AddGroup(k, tile, group, part);
  }
  totals.Write(p, tile, first_row, rows);
}

template <class S, int kTiles, int kTable, bool kSmall>
void MultiplyKeptTiles(const Product& p, const uint8_t* prepared, int64_t tile, uint8_t* scratch) {
  const Packed& k = p.kernel;
  Unroll<kTiles>([&](auto t) GOSSAMER_STEP {
    UnpackKept<S>(k, tile + t, KeptPanel(k, scratch, t));
  });
  const KeptPanel panel(k, scratch, 0);
  ForRows<S::kByteRows>(p, prepared, [&](auto count, int64_t first_row, const Row* rows) {
    KeptBlock<S, kTiles, kTable, kSmall, count>(p, tile, panel, first_row, rows);
  });
}

using KeptFn = void (*)(const Product&, const uint8_t*, int64_t, uint8_t*);

template <class S, int kTiles, int kTable>
KeptFn FindKeptOfTable(const Packed& k) {
  return k.byte_bits() == 8 ? MultiplyKeptTiles<S, kTiles, kTable, false>
                     : MultiplyKeptTiles<S, kTiles, kTable, true>;
}

template <class S, int kTiles>
KeptFn FindKept(const Packed& k) {
  if (WindowSpan(k) == 8) return FindKeptOfTable<S, kTiles, 8>(k);
  if (WindowSpan(k) <= 16) return FindKeptOfTable<S, kTiles, 16>(k);
  return FindKeptOfTable<S, kTiles, 64>(k);
}

template <class S>
void MultiplyKept(const Product& p, const uint8_t* prepared, int64_t first, int64_t last,
                  uint8_t* scratch) {
  const KeptFn some = FindKept<S, S::kByteTiles>(p.kernel), one = FindKept<S, 1>(p.kernel);
  ForTiles<S::kByteTiles>(first, last, [&](int64_t t) { some(p, prepared, t, scratch); },
                          [&](int64_t t) { one(p, prepared, t, scratch); });
}

}  // namespace
}  // namespace gossamer
