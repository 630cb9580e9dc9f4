// What a native call hands back: a code and a static text; bindings.cpp makes it an exception.
#pragma once

namespace sidfast {

enum class Code : int { ok = 0, bad_argument = 1, unsupported = 2 };

// The text is a string literal: kernels are compiled once per instruction set, and a
// std::string instantiated there could be linked into code that runs on a lesser CPU.
struct Status {
  Code code = Code::ok;
  const char* text = "";
};

inline constexpr Status kOk{};

}  // namespace sidfast
