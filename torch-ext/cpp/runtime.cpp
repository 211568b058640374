// Settings, memory, generators and copies out of raw bytes.
#include "ext.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/Generator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randperm.h>
#include <c10/core/GradMode.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>

static thread_local std::string latest_error;

extern "C" {

void ext_set_error(const char* message) noexcept {
  try {
    latest_error = message ? message : "";
  } catch (...) {
    latest_error = "bad_alloc"; // short enough to need no memory
  }
}
const char* ext_error() { return latest_error.c_str(); }
const char* ext_version() { return TORCH_VERSION; }

// --- settings ---------------------------------------------------------------------------------------------

int ext_set_tf32(bool on) {
  return ext::guarded([&] {
    at::globalContext().setAllowTF32CuBLAS(on);
    at::globalContext().setAllowTF32CuDNN(on);
  });
}

int ext_set_deterministic(bool on) {
  return ext::guarded([&] {
    at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/true);
    at::globalContext().setDeterministicCuDNN(on);
    // Otherwise each fresh tensor is filled with NaN first, which costs time and changes no result here.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  });
}

int ext_set_cudnn_benchmark(bool on) {
  return ext::guarded([&] { at::globalContext().setBenchmarkCuDNN(on); });
}

// --- memory of the accelerator ------------------------------------------------------------------------------

// out: allocated, peak, free, total, in bytes.
int ext_memory_stats(int device, uint64_t* out) {
  return ext::guarded([&] {
    const auto stats = at::accelerator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
    const auto whole = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto [free, total] = at::accelerator::getMemoryInfo(static_cast<c10::DeviceIndex>(device));
    out[0] = static_cast<uint64_t>(stats.allocated_bytes[whole].current);
    out[1] = static_cast<uint64_t>(stats.allocated_bytes[whole].peak);
    out[2] = free;
    out[3] = total;
  });
}

int ext_reset_peak_memory(int device) {
  return ext::guarded([&] { at::accelerator::resetPeakStats(static_cast<c10::DeviceIndex>(device)); });
}

int ext_empty_cache() {
  return ext::guarded([&] { at::accelerator::emptyCache(); });
}

// --- memory format ------------------------------------------------------------------------------------------

int ext_channels_last(const at::Tensor* tensor, Handle* out) {
  return ext::guarded([&] { *out = new at::Tensor(tensor->contiguous(at::MemoryFormat::ChannelsLast)); });
}

int ext_is_channels_last(const at::Tensor* tensor, bool* out) {
  return ext::guarded([&] { *out = tensor->is_contiguous(at::MemoryFormat::ChannelsLast); });
}

// --- generators ---------------------------------------------------------------------------------------------

int ext_generator_new(uint64_t seed, at::Generator** out) {
  return ext::guarded([&] { *out = new at::Generator(at::make_generator<at::CPUGeneratorImpl>(seed)); });
}

void ext_generator_free(at::Generator* generator) { delete generator; }

int ext_generator_randn(at::Generator* generator, const int64_t* size, size_t dims, Handle* out) {
  return ext::guarded([&] {
    *out = new at::Tensor(at::randn(at::IntArrayRef(size, dims), *generator, at::TensorOptions(at::kFloat)));
  });
}

int ext_generator_rand(at::Generator* generator, const int64_t* size, size_t dims, Handle* out) {
  return ext::guarded([&] {
    *out = new at::Tensor(at::rand(at::IntArrayRef(size, dims), *generator, at::TensorOptions(at::kFloat)));
  });
}

int ext_generator_randint(
    at::Generator* generator, int64_t low, int64_t high, const int64_t* size, size_t dims, Handle* out) {
  return ext::guarded([&] {
    *out = new at::Tensor(
        at::randint(low, high, at::IntArrayRef(size, dims), *generator, at::TensorOptions(at::kLong)));
  });
}

int ext_generator_randperm(at::Generator* generator, int64_t n, Handle* out) {
  return ext::guarded(
      [&] { *out = new at::Tensor(at::randperm(n, *generator, at::TensorOptions(at::kLong))); });
}

// The state is a tensor of bytes.
int ext_generator_state(at::Generator* generator, Handle* out) {
  return ext::guarded([&] {
    std::lock_guard<std::mutex> lock(generator->mutex());
    *out = new at::Tensor(generator->get_state());
  });
}

int ext_generator_set_state(at::Generator* generator, const at::Tensor* state) {
  return ext::guarded([&] {
    // libtorch checks how many numbers are left and which is next each on its own, and would read behind the last one.
    // What is no state of a generator in any other way is not the same when it is read back.
    auto trial = at::make_generator<at::CPUGeneratorImpl>(0);
    trial.set_state(*state);
    const auto engine = at::check_generator<at::CPUGeneratorImpl>(trial)->engine().data();
    const auto numbers = static_cast<int64_t>(at::MERSENNE_STATE_N);
    TORCH_CHECK(
        engine.left_ >= 1 && int64_t{engine.left_} - 1 + int64_t{engine.next_} <= numbers &&
            at::equal(trial.get_state(), *state),
        "the bytes are no state that a generator gave");
    std::lock_guard<std::mutex> lock(generator->mutex());
    generator->set_state(*state);
  });
}

// --- tensors from bytes and back ----------------------------------------------------------------------------

// `tensor` on the CPU, its elements in row order and with memory behind each.
int ext_tensor_in_rows(const at::Tensor* tensor, Handle* out) {
  return ext::guarded([&] {
    auto rows = ext::plain(tensor->detach()).cpu().contiguous();
    const auto end = rows.storage_offset() * rows.element_size() + rows.nbytes();
    TORCH_CHECK(
        rows.numel() == 0 || (rows.const_data_ptr() != nullptr && rows.storage().nbytes() >= end),
        "a tensor with memory behind its elements is needed");
    *out = new at::Tensor(std::move(rows));
  });
}

// Writes the next `count` bytes of a source to `to`; 0, or 1 where the source has failed.
using Fill = int (*)(void* source, uint8_t* to, size_t count);

// A fresh tensor of `target` kind on `device` (-1: the CPU, else the number of a CUDA device), filled from a source that
// holds exactly the elements of `shape` in `kind`. Where nothing is converted they are written to their place at once.
int ext_tensor_filled(
    void* source, Fill fill, int from, const int64_t* shape, size_t dims, int target, int device, Handle* out) {
  return ext::guarded([&] {
    c10::AutoGradMode no_grad(false);
    auto kind = static_cast<at::ScalarType>(from);
    // A file may hold any byte, a C++ bool may not; read as bytes, non-zero becomes true in the copy.
    if (kind == at::kBool) kind = at::kByte;
    const auto place = device < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    auto result = at::empty(
        at::IntArrayRef(shape, dims), at::TensorOptions(static_cast<at::ScalarType>(target)).device(place));
    const auto next = [&](at::Tensor& to, int64_t elements) {
      auto* place = static_cast<uint8_t*>(to.mutable_data_ptr());
      if (fill(source, place, elements * to.element_size()) != 0) throw std::runtime_error("the source failed");
    };
    const int64_t count = result.numel();
    if (count > 0 && kind == result.scalar_type() && result.is_cpu()) {
      next(result, count);
    } else if (count > 0) {
      // By way of a small tensor, so that the whole is never held twice.
      auto flat = result.view(-1);
      const int64_t step = std::min<int64_t>(count, 1 << 20);
      auto scratch = at::empty({step}, at::TensorOptions(kind));
      for (int64_t at = 0; at < count; at += step) {
        const int64_t n = std::min(step, count - at);
        next(scratch, n);
        flat.narrow(0, at, n).copy_(scratch.narrow(0, 0, n));
      }
    }
    *out = new at::Tensor(std::move(result));
  });
}

} // extern "C"
