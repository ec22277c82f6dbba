#include "target.h"

namespace gossamer {
namespace {

// GOSSAMER_HAVE_*: what the build compiled.
const Target* const kTargets[] = {
#ifdef GOSSAMER_HAVE_AVX512
    &kAvx512,
#endif
#ifdef GOSSAMER_HAVE_AVX2VNNI
    &kAvx2Vnni,
#endif
#ifdef GOSSAMER_HAVE_AVX2
    &kAvx2,
#endif
#ifdef GOSSAMER_HAVE_NEON
    &kNeon,
#endif
    &kPortable,
    nullptr,
};

}  // namespace

const Target* const* AllTargets() { return kTargets; }

const Target* FindTarget(std::string_view name) {
  for (const Target* const* target = kTargets; *target != nullptr; ++target) {
    if ((*target)->runs() && (name.empty() || name == (*target)->name)) return *target;
  }
  return nullptr;
}

}  // namespace gossamer
