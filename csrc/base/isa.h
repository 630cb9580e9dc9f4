// Which instruction sets this build holds and this CPU runs.
#pragma once

namespace sidfast {

enum class Isa : int { generic = 0, avx2 = 1, avx512 = 2 };

inline constexpr int kIsaCount = 3;
inline constexpr const char* kIsaNames[kIsaCount] = {"generic", "avx2", "avx512"};

// True when the level was compiled in and both the CPU and the operating system support it.
bool isa_available(Isa isa);

Isa best_isa();

}  // namespace sidfast
