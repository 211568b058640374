// What every C++ file of this crate shares: errors that never cross into Rust as exceptions, handles, and tensors that
// kernels may read through a pointer.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <cstddef>
#include <cstdint>
#include <exception>

// A tensor's handle is what tch uses too: a heap-allocated at::Tensor.
using Handle = at::Tensor*;

// Keeps the message of the calling thread's latest failure. Throws nothing, as Rust calls it too.
extern "C" void ext_set_error(const char* message) noexcept;
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

// `tensor` with memory behind all its elements. Some tensors have none (zeros that autograd makes up, sparse and nested
// ones), and some are read otherwise than they lie there (negated, conjugated, quantised ones).
inline at::Tensor plain(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.defined(), "a tensor is needed, not an undefined one");
  TORCH_CHECK(
      tensor.layout() == at::kStrided && !tensor.is_nested() && !tensor.is_quantized(),
      "a dense tensor is needed, not a sparse, nested or quantised one");
  if (tensor._is_zerotensor()) return at::zeros(tensor.sizes(), tensor.options());
  return tensor.resolve_conj().resolve_neg();
}

} // namespace ext
