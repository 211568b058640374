// What every C++ file of this crate shares: errors that never cross into Rust as exceptions, and handles.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <exception>

// A tensor's handle is what tch uses too: a heap-allocated at::Tensor.
using Handle = at::Tensor*;

// Keeps the message of the calling thread's latest failure.
extern "C" void ext_set_error(const char* message);
extern "C" const char* ext_error();

namespace ext {

// Runs `body`; 0 when it returned, 1 when it threw (the message is then in ext_error).
template <class F>
int guarded(F body) {
  try {
    body();
    return 0;
  } catch (const c10::Error& e) {
    ext_set_error(e.what_without_backtrace());
  } catch (const std::exception& e) {
    ext_set_error(e.what());
  } catch (...) {
    ext_set_error("an exception of an unknown type");
  }
  return 1;
}

} // namespace ext
