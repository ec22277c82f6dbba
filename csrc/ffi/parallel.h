// Shares work with the threads of the compiled program's own pool.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace gossamer {

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Calls work(first, last) over [0, count), `chunk` at a time; the caller takes chunks too, so that
// nothing waits for a thread that is busy or asleep. A helper that comes too late finds nothing.
template <class Work>
void ParallelFor(xla::ffi::ThreadPool& pool, int64_t count, int64_t chunk, int64_t threads,
                 const Work& work) {
  struct State {
    const Work* work;
    int64_t count, chunk;
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};

    void Run() {
      for (;;) {
        const int64_t first = next.fetch_add(chunk, std::memory_order_relaxed);
        if (first >= count) return;
        const int64_t last = first + chunk < count ? first + chunk : count;
        (*work)(first, last);
        done.fetch_add(last - first, std::memory_order_release);
      }
    }
  };
  if (threads <= 1 || count <= chunk) {
    work(0, count);
    return;
  }
  // The state outlives this call where a helper starts after its end; `work` is not used then.
  auto state = std::make_shared<State>();
  state->work = &work;
  state->count = count;
  state->chunk = chunk;
  for (int64_t i = 1; i < threads; ++i) pool.Schedule([state] { state->Run(); });
  state->Run();
  while (state->done.load(std::memory_order_acquire) < count) Pause();
}

}  // namespace gossamer
