// Settings, memory, generators and copies out of raw bytes.
#include "ext.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/Generator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randperm.h>
#include <c10/core/GradMode.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string>

static thread_local std::string latest_error;

extern "C" {

void ext_set_error(const char* message) { latest_error = message ? message : ""; }
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
    std::lock_guard<std::mutex> lock(generator->mutex());
    generator->set_state(*state);
  });
}

// --- tensors from bytes -------------------------------------------------------------------------------------

// A fresh tensor of `target` kind on `device` (-1: the CPU, else the number of a CUDA device), copied once from
// `data`, which holds exactly the elements of `shape` in `source` kind, at any alignment. The caller checked the length.
int ext_tensor_from_bytes(
    const uint8_t* data, int source, const int64_t* shape, size_t dims, int target, int device, Handle* out) {
  return ext::guarded([&] {
    c10::AutoGradMode no_grad(false);
    auto kind = static_cast<at::ScalarType>(source);
    // A file may hold any byte, a C++ bool may not; read as bytes, non-zero becomes true in the copy.
    if (kind == at::kBool) kind = at::kByte;
    const auto place = device < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    auto result = at::empty(
        at::IntArrayRef(shape, dims), at::TensorOptions(static_cast<at::ScalarType>(target)).device(place));
    const int64_t count = result.numel();
    const auto width = c10::elementSize(kind);
    if (count > 0) {
      auto flat = result.view(-1);
      if (reinterpret_cast<uintptr_t>(data) % width == 0) {
        // The borrowed view dies at the end of this statement; copy_ from pageable memory has finished by then.
        flat.copy_(at::from_blob(const_cast<uint8_t*>(data), {count}, at::TensorOptions(kind)));
      } else {
        // Misaligned: by way of a small aligned tensor, so that the whole is never held twice.
        const int64_t step = std::min<int64_t>(count, 1 << 20);
        auto scratch = at::empty({step}, at::TensorOptions(kind));
        for (int64_t at = 0; at < count; at += step) {
          const int64_t n = std::min(step, count - at);
          std::memcpy(scratch.mutable_data_ptr(), data + at * width, n * width);
          flat.narrow(0, at, n).copy_(scratch.narrow(0, 0, n));
        }
      }
    }
    *out = new at::Tensor(std::move(result));
  });
}

} // extern "C"
