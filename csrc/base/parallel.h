// Static division of equal units of work among OpenMP threads.
#pragma once

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace sidfast::SIDFAST_ISA {

// body(unit) for every unit; at most `threads` threads, no region at all for one.
template <class Body>
static inline void parallel_units(int64_t units, int threads, const Body& body) {
#ifdef _OPENMP
  if (threads > units) threads = static_cast<int>(units);
  if (threads > 1) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t unit = 0; unit < units; ++unit) body(unit);
    return;
  }
#endif
  for (int64_t unit = 0; unit < units; ++unit) body(unit);
}

}  // namespace sidfast::SIDFAST_ISA
