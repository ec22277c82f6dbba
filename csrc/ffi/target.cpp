// Which target runs, and which ones could.
#include <cstdlib>
#include <string>

#include "chosen.h"

namespace gossamer {

const Target* Chosen() {
  // Read once: the choice is the process's.
  static const Target* const chosen = [] {
    const char* name = std::getenv("GOSSAMER_TARGET");
    return FindTarget(name == nullptr ? "" : name);
  }();
  return chosen;
}

}  // namespace gossamer

// Reads memory; the time it takes is the caller's to measure. See csrc/kernels/read-inl.h.
extern "C" __attribute__((visibility("default"))) uint64_t gossamer_read(
    const uint8_t* data, int64_t bytes, int64_t streams, int64_t ahead) {
  return gossamer::Chosen()->read(data, bytes, streams, ahead);
}

// Multiplies and adds in registers, bytes or floats, and gives how often; the time it takes is the
// caller's to measure. See csrc/kernels/peak-inl.h.
extern "C" __attribute__((visibility("default"))) int64_t gossamer_multiply_adds(
    const uint8_t* data, int64_t steps, bool floats, float* result) {
  return gossamer::Chosen()->multiply_adds(data, steps, floats, result);
}

// The targets that this processor runs, the fastest first, with spaces between.
extern "C" __attribute__((visibility("default"))) const char* gossamer_targets() {
  static const std::string names = [] {
    std::string list;
    for (const gossamer::Target* const* t = gossamer::AllTargets(); *t != nullptr; ++t) {
      if ((*t)->runs()) list += std::string(list.empty() ? "" : " ") + (*t)->name;
    }
    return list;
  }();
  return names.c_str();
}
