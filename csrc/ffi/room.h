// Memory that a thread keeps from call to call, so that kernels need none of their own.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

namespace gossamer {

// At least `bytes` bytes at a multiple of 64, the thread's own; each `kWhich` is another piece.
// What was in it is lost when a later call asks for more.
template <int kWhich>
uint8_t* Room(int64_t bytes) {
  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<uint8_t, Free> memory;
  thread_local int64_t size = 0;
  if (bytes > size) {
    size = (bytes + 4095) / 4096 * 4096;
    memory.reset(static_cast<uint8_t*>(std::aligned_alloc(64, size)));
    if (memory == nullptr) std::abort();
  }
  return memory.get();
}

}  // namespace gossamer
