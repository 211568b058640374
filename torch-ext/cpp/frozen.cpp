// Convolutions and linear layers whose weights never change: laid out once for oneDNN, differentiated in x only.
#include "ext.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <memory>
#include <mutex>
#include <vector>

namespace ta = torch::autograd;

namespace {

// An operator without a C++ header, called through the dispatcher.
template <class... Arguments>
at::Tensor call(const char* name, Arguments&&... arguments) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  torch::jit::Stack stack{c10::IValue(std::forward<Arguments>(arguments))...};
  op.callBoxed(stack);
  return stack.at(0).toTensor();
}

// oneDNN computes in bf16 on processors with AVX-512 (or AVX-NE-CONVERT), libtorch's plain operators on all.
bool has_bf16() {
  static const bool has = [] {
    torch::jit::Stack stack;
    c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_is_mkldnn_bf16_supported", "").callBoxed(stack);
    return stack.at(0).toBool();
  }();
  return has;
}

using Ints = std::vector<int64_t>;

// What the pointwise operators take for "nothing fused".
c10::List<std::optional<at::Scalar>> no_scalars() { return c10::List<std::optional<at::Scalar>>(); }
c10::IValue optional(const at::Tensor& t) { return t.defined() ? c10::IValue(t) : c10::IValue(); }

// What a layer is made of, checked: kernels trust the sizes that they are told, and read behind a bias that is too short.
at::Tensor checked_weight(const at::Tensor& weight, int64_t rank) {
  const auto w = ext::plain(weight.detach());
  TORCH_CHECK(w.dim() == rank, "the weight has rank ", w.dim(), ", but ", rank, " was expected");
  // Kernels are told a weight's strides, and not all know rows that share memory.
  return w.is_non_overlapping_and_dense() ? w : w.contiguous();
}

at::Tensor checked_bias(const at::Tensor* bias, const at::Tensor& weight) {
  if (!bias) return {};
  const auto b = ext::plain(bias->detach()).contiguous();
  TORCH_CHECK(
      b.dim() == 1 && b.size(0) == weight.size(0), "the bias is ", b.sizes(), ", but [", weight.size(0),
      "] was expected");
  TORCH_CHECK(
      b.scalar_type() == weight.scalar_type() && b.device() == weight.device(), "the bias is ", b.scalar_type(), " on ",
      b.device(), ", but the weight is ", weight.scalar_type(), " on ", weight.device());
  return b;
}

struct Layer : std::enable_shared_from_this<Layer> {
  Layer(const at::Tensor& weight, const at::Tensor* bias, int64_t rank)
      : now{Laid::given, checked_weight(weight, rank)},
        bias(checked_bias(bias, now.weight)),
        shape(now.weight.sizes().vec()),
        kind(now.weight.scalar_type()),
        device(now.weight.device()) {
    // oneDNN's packed layouts are for these; anything else takes the plain operators.
    packs = device.is_cpu() && (kind == at::kFloat || (kind == at::kBFloat16 && has_bf16())) && now.weight.numel() > 0;
  }
  virtual ~Layer() = default;
  // Refuses sizes that the weight does not serve.
  virtual void check(const at::Tensor& x) const = 0;
  virtual at::Tensor forward(const at::Tensor& x, bool recording) = 0;
  virtual at::Tensor backward(const at::Tensor& gradient, at::IntArrayRef x_sizes, at::MemoryFormat x_format) = 0;
  // The weight as a matrix that serves both passes, and back.
  virtual at::Tensor to_matrix(const at::Tensor& weight) const { return weight; }
  virtual at::Tensor from_matrix(const at::Tensor& matrix) const { return matrix; }

  at::Tensor run(const at::Tensor& x);

  // How the weight lies: as it was given, as a matrix, or packed for the forward pass.
  struct Laid {
    enum { given, matrix, packed } how;
    at::Tensor weight;
  };

  // How the weight lies from the first call on, which decides. A layer that is differentiated would hold two packed
  // copies. The second is made where the weight is small beside the rows (pixels) that it meets, so that it costs little
  // memory; elsewhere one plain matrix serves both passes.
  template <class Pack>
  Laid lay(bool recording, double rows, Pack pack) {
    std::lock_guard<std::mutex> lock(laying);
    if (now.how == Laid::given) {
      const bool one_copy = recording && static_cast<double>(now.weight.numel()) > 4096 * rows;
      now = one_copy ? Laid{Laid::matrix, to_matrix(now.weight)} : Laid{Laid::packed, pack(now.weight)};
      settle(now.weight);
    }
    return now;
  }

  // The weight packed for the backward pass, at the first gradient.
  template <class Pack>
  at::Tensor lay_back(Pack pack) {
    std::lock_guard<std::mutex> lock(laying);
    if (!packed_back.defined()) {
      packed_back = pack(plain(now));
      settle(packed_back);
    }
    return packed_back;
  }

  Laid laid() {
    std::lock_guard<std::mutex> lock(laying);
    return now;
  }

  // The weight as it was given, however it lies.
  at::Tensor plain(const Laid& laid) const {
    if (laid.how == Laid::packed) return laid.weight.to_dense();
    return laid.how == Laid::matrix ? from_matrix(laid.weight) : laid.weight;
  }

  // Hands what packing a large weight freed back to the system: glibc keeps blocks below 32 MiB, and a whole network's
  // would add up to another copy of it.
  static void settle(const at::Tensor& packed) {
#ifdef __GLIBC__
    if (packed.numel() * packed.element_size() > 4 << 20) malloc_trim(0);
#endif
  }

private:
  // Two threads may meet a layer, so what changes is read and changed under the lock.
  std::mutex laying;
  Laid now;
  at::Tensor packed_back;

public:
  const at::Tensor bias;
  const Ints shape;
  const at::ScalarType kind;
  const at::Device device;
  bool packs; // not changed after construction
};

struct FrozenNode : public ta::Node {
  FrozenNode(std::shared_ptr<Layer> layer, const at::Tensor& x)
      : layer(std::move(layer)), sizes(x.sizes().vec()), format(x.suggest_memory_format()) {}
  std::string name() const override { return "Frozen"; }
  ta::variable_list apply(ta::variable_list&& gradients) override {
    TORCH_CHECK(!c10::GradMode::is_enabled(), "a frozen layer can be differentiated only once (create_graph)");
    if (!gradients[0].defined()) return ta::variable_list(1);
    return {layer->backward(ext::plain(gradients[0]), sizes, format)};
  }
  std::shared_ptr<Layer> layer;
  Ints sizes;
  at::MemoryFormat format;
};

at::Tensor Layer::run(const at::Tensor& x) {
  TORCH_CHECK(
      x.scalar_type() == kind && x.device() == device, "x is ", x.scalar_type(), " on ", x.device(),
      ", but the weight is ", kind, " on ", device);
  check(x);
  const bool recording = c10::GradMode::is_enabled() && x.requires_grad();
  at::Tensor y;
  {
    c10::AutoGradMode off(false);
    // variable_data: a view made here may be changed in place later, like any other result.
    y = forward(ext::plain(x.detach()), recording).variable_data();
  }
  if (recording) {
    auto node = std::shared_ptr<FrozenNode>(new FrozenNode(shared_from_this(), x), ta::deleteNode);
    node->set_next_edges(ta::collect_next_edges(x));
    ta::set_history(y, node);
  }
  return y;
}

struct Linear : Layer {
  Linear(const at::Tensor& weight, const at::Tensor* bias) : Layer(weight, bias, 2) {
    // In f32 the plain product is as fast at every shape of a U-Net.
    packs = packs && kind == at::kBFloat16;
  }

  static at::Tensor product(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) {
    return call("mkldnn::_linear_pointwise", x.contiguous(), w, optional(b), "none", no_scalars(), "");
  }

  static at::Tensor pack(const at::Tensor& w, int64_t rows) {
    return call("mkldnn::_reorder_linear_weight", w, rows);
  }

  void check(const at::Tensor& x) const override {
    TORCH_CHECK(x.dim() >= 1 && x.size(-1) == shape[1], "x is ", x.sizes(), ", but rows of ", shape[1], " were expected");
  }

  at::Tensor forward(const at::Tensor& x, bool recording) override {
    if (!packs || x.numel() == 0) return at::linear(x, plain(laid()), bias);
    const auto rows = x.numel() / x.size(-1);
    const auto [how, w] =
        lay(recording, static_cast<double>(rows), [&](const at::Tensor& weight) { return pack(weight, rows); });
    return how == Laid::matrix ? at::linear(x, w, bias) : product(x, w, bias);
  }

  at::Tensor backward(const at::Tensor& gradient, at::IntArrayRef, at::MemoryFormat) override {
    const auto as = laid();
    if (as.how != Laid::packed || gradient.numel() == 0) return at::matmul(gradient, plain(as));
    const auto back = lay_back(
        [&](const at::Tensor& weight) { return pack(weight.t().contiguous(), gradient.numel() / gradient.size(-1)); });
    return product(gradient, back, at::Tensor());
  }
};

struct Conv2d : Layer {
  Conv2d(const at::Tensor& weight, const at::Tensor* bias, int64_t stride, int64_t padding)
      : Layer(weight, bias, 4), stride{stride, stride}, padding{padding, padding} {
    // More than any picture has pixels; sizes that are made of these overflow nowhere.
    const int64_t most = 1 << 20;
    TORCH_CHECK(
        stride >= 1 && stride <= most && padding >= 0 && padding <= most,
        "a stride from 1 and a padding from 0 to ", most, " were expected, not ", stride, " and ", padding);
    // The input gradient of a stride-1 convolution is a convolution with the weight flipped and transposed.
    back_padding = {shape[2] - 1 - padding, shape[3] - 1 - padding};
    back_is_conv = stride == 1 && back_padding[0] >= 0 && back_padding[1] >= 0;
  }

  static at::Tensor convolve(
      const at::Tensor& x, const at::Tensor& w, const at::Tensor& b, const Ints& padding, const Ints& stride) {
    return call(
        "mkldnn::_convolution_pointwise", x.contiguous(at::MemoryFormat::ChannelsLast), w, optional(b), padding, stride,
        Ints{1, 1}, int64_t{1}, "none", no_scalars(), "");
  }

  static at::Tensor pack(const at::Tensor& w, const Ints& padding, const Ints& stride, at::IntArrayRef sizes) {
    return call(
        "mkldnn::_reorder_convolution_weight", w, padding, stride, Ints{1, 1}, int64_t{1}, c10::IValue(sizes.vec()));
  }

  int64_t out_size(int64_t in, int64_t dim) const { return (in + 2 * padding[0] - shape[dim]) / stride[0] + 1; }

  void check(const at::Tensor& x) const override {
    TORCH_CHECK(
        x.dim() == 4 && x.size(1) == shape[1], "x is ", x.sizes(), ", but [batch, ", shape[1],
        ", height, width] was expected");
    TORCH_CHECK(
        x.size(2) + 2 * padding[0] >= shape[2] && x.size(3) + 2 * padding[1] >= shape[3], "x is ", x.sizes(),
        ", smaller than the kernel [", shape[2], ", ", shape[3], "] with padding ", padding[0]);
  }

  // [out, in, height, width] to [out, height · width · in].
  at::Tensor to_matrix(const at::Tensor& weight) const override {
    return weight.permute({0, 2, 3, 1}).reshape({shape[0], -1});
  }

  at::Tensor from_matrix(const at::Tensor& matrix) const override {
    return matrix.view({shape[0], shape[2], shape[3], shape[1]}).permute({0, 3, 1, 2});
  }

  // The pixels under the kernel at each place, [B · H' · W', height · width · in]: a convolution is their product with
  // the matrix [out, height · width · in].
  at::Tensor columns(const at::Tensor& x) const {
    const auto p = padding[0];
    auto pixels = x.permute({0, 2, 3, 1});
    if (p > 0) pixels = at::constant_pad_nd(pixels, {0, 0, p, p, p, p});
    return pixels.unfold(1, shape[2], stride[0])
        .unfold(2, shape[3], stride[0])
        .permute({0, 1, 2, 4, 5, 3})
        .reshape({-1, shape[2] * shape[3] * shape[1]});
  }

  at::Tensor forward_matrix(const at::Tensor& x, const at::Tensor& matrix) const {
    const auto y = at::linear(columns(x), matrix, bias);
    return y.view({x.size(0), out_size(x.size(2), 2), out_size(x.size(3), 3), shape[0]}).permute({0, 3, 1, 2});
  }

  at::Tensor backward_matrix(const at::Tensor& gradient, const at::Tensor& matrix, at::IntArrayRef x_sizes) const {
    const auto pixels = gradient.permute({0, 2, 3, 1});
    const auto h = pixels.size(1), w = pixels.size(2), p = padding[0], s = stride[0];
    const auto taps = at::mm(pixels.reshape({-1, shape[0]}), matrix).view({-1, h, w, shape[2], shape[3], shape[1]});
    if (shape[2] == 1 && shape[3] == 1 && s == 1 && p == 0) return taps.select(3, 0).select(3, 0).permute({0, 3, 1, 2});
    // What each tap of the kernel has read gets its share back; summed in f32.
    auto sum = at::zeros(
        {x_sizes[0], x_sizes[2] + 2 * p, x_sizes[3] + 2 * p, shape[1]}, gradient.options().dtype(at::kFloat));
    for (int64_t i = 0; i < shape[2]; ++i)
      for (int64_t j = 0; j < shape[3]; ++j)
        sum.slice(1, i, i + (h - 1) * s + 1, s).slice(2, j, j + (w - 1) * s + 1, s).add_(taps.select(3, i).select(3, j));
    return sum.narrow(1, p, x_sizes[2])
        .narrow(2, p, x_sizes[3])
        .permute({0, 3, 1, 2})
        .to(gradient.scalar_type())
        .contiguous(at::MemoryFormat::ChannelsLast);
  }

  at::Tensor forward(const at::Tensor& x, bool recording) override {
    if (!packs || x.numel() == 0) return at::conv2d(x, plain(laid()), bias, stride, padding);
    const auto pixels = static_cast<double>(x.size(0)) * out_size(x.size(2), 2) * out_size(x.size(3), 3);
    const auto [how, w] =
        lay(recording, pixels, [&](const at::Tensor& weight) { return pack(weight, padding, stride, x.sizes()); });
    return how == Laid::matrix ? forward_matrix(x, w) : convolve(x, w, bias, padding, stride);
  }

  at::Tensor backward(const at::Tensor& gradient, at::IntArrayRef x_sizes, at::MemoryFormat x_format) override {
    const auto as = laid();
    if (as.how == Laid::matrix && gradient.numel() > 0) return backward_matrix(gradient, as.weight, x_sizes);
    if (as.how != Laid::packed || !back_is_conv || gradient.numel() == 0) {
      const auto w = plain(as);
      // Only x's shape and layout are read when no weight gradient is asked for: no page of this is touched.
      const auto x = at::empty(x_sizes, gradient.options(), x_format);
      return std::get<0>(at::convolution_backward(
          gradient, x, w, c10::nullopt, stride, padding, Ints{1, 1}, false, Ints{0, 0}, 1, {true, false, false}));
    }
    const auto back = lay_back([&](const at::Tensor& weight) {
      return pack(weight.flip({2, 3}).transpose(0, 1).contiguous(), back_padding, stride, gradient.sizes());
    });
    return convolve(gradient, back, at::Tensor(), back_padding, stride);
  }

  const Ints stride, padding;
  Ints back_padding;
  bool back_is_conv;
};

} // namespace

using LayerHandle = std::shared_ptr<Layer>;

extern "C" {

// `bias` may be null.
int ext_frozen_linear(const at::Tensor* weight, const at::Tensor* bias, LayerHandle** out) {
  return ext::guarded([&] { *out = new LayerHandle(std::make_shared<Linear>(*weight, bias)); });
}

int ext_frozen_conv2d(
    const at::Tensor* weight, const at::Tensor* bias, int64_t stride, int64_t padding, LayerHandle** out) {
  return ext::guarded([&] { *out = new LayerHandle(std::make_shared<Conv2d>(*weight, bias, stride, padding)); });
}

void ext_frozen_free(LayerHandle* layer) { delete layer; }

int ext_frozen_forward(LayerHandle* layer, const at::Tensor* x, Handle* out) {
  return ext::guarded([&] { *out = new at::Tensor((*layer)->run(*x)); });
}

} // extern "C"
