#include "attention.h"

#include <initializer_list>

namespace gossamer {

const char* WhyNot(const Attention& a) {
  if (a.batch < 1 || a.heads < 1 || a.kv_heads < 1) return "an axis is empty";
  if (a.heads % a.kv_heads != 0) return "the heads are no multiple of the key-value heads";
  if (a.heads / a.kv_heads > kMostQueries) return "more than 64 heads share keys";
  bool known = false;
  for (int64_t size : {32, 64, 80, 96, 128, 256}) known = known || a.head_dim == size;
  if (!known) return "a head's size is none of 32, 64, 80, 96, 128 and 256";
  if (a.length < 0 || a.length >= a.room) return "the cache has no room for a token more";
  return nullptr;
}

}  // namespace gossamer
