#include "base/isa.h"

namespace sidfast {

bool isa_available(Isa isa) {
  if (isa == Isa::generic) return true;
#ifdef SIDFAST_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (isa == Isa::avx2) return avx2;
  return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

Isa best_isa() {
  for (int level = kIsaCount - 1; level > 0; --level) {
    if (isa_available(static_cast<Isa>(level))) return static_cast<Isa>(level);
  }
  return Isa::generic;
}

}  // namespace sidfast
