// Convolutions and linear layers whose weights never change: laid out once for oneDNN, differentiated in x only.
#include "ext.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
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

using Ints = std::vector<int64_t>;

// What the pointwise operators take for "nothing fused".
c10::List<std::optional<at::Scalar>> no_scalars() { return c10::List<std::optional<at::Scalar>>(); }
c10::IValue optional(const at::Tensor& t) { return t.defined() ? c10::IValue(t) : c10::IValue(); }

struct Layer : std::enable_shared_from_this<Layer> {
  Layer(const at::Tensor& weight, const at::Tensor* bias)
      : weight(weight.detach()), bias(bias ? bias->detach() : at::Tensor()) {
    // oneDNN's packed layouts are for these; anything else takes the plain operators.
    packs = weight.is_cpu() && (weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kBFloat16);
  }
  virtual ~Layer() = default;
  virtual at::Tensor forward(const at::Tensor& x, bool recording) = 0;
  virtual at::Tensor backward(const at::Tensor& gradient, at::IntArrayRef x_sizes) = 0;

  at::Tensor run(const at::Tensor& x);

  // Hands what packing a large weight freed back to the system: glibc keeps blocks below 32 MiB, and a whole network's
  // would add up to another copy of it.
  static void settle(const at::Tensor& packed) {
#ifdef __GLIBC__
    if (packed.numel() * packed.element_size() > 4 << 20) malloc_trim(0);
#endif
  }

  // The plain weight, also when only a packed one is left.
  at::Tensor plain() const { return weight.defined() ? weight : packed.to_dense(); }

  // A layer that is differentiated would hold two packed copies. The second is made where the weight is small beside the
  // rows (pixels) that it meets, so that it costs little memory; elsewhere one plain matrix serves both passes.
  bool one_copy(bool recording, int64_t rows) const { return recording && weight.numel() > 4096 * rows; }

  bool packs;
  bool decided = false, is_matrix = false; // is_matrix: `weight` is kept, as a plain matrix, and nothing is packed
  at::Tensor weight, bias, packed, packed_back;
  std::mutex packing; // two threads may meet an unpacked layer
};

struct FrozenNode : public ta::Node {
  FrozenNode(std::shared_ptr<Layer> layer, Ints sizes) : layer(std::move(layer)), sizes(std::move(sizes)) {}
  std::string name() const override { return "Frozen"; }
  ta::variable_list apply(ta::variable_list&& gradients) override {
    TORCH_CHECK(!c10::GradMode::is_enabled(), "a frozen layer can be differentiated only once (create_graph)");
    if (!gradients[0].defined()) return ta::variable_list(1);
    return {layer->backward(gradients[0], sizes)};
  }
  std::shared_ptr<Layer> layer;
  Ints sizes;
};

at::Tensor Layer::run(const at::Tensor& x) {
  const bool recording = c10::GradMode::is_enabled() && x.requires_grad();
  at::Tensor y;
  {
    c10::AutoGradMode off(false);
    // variable_data: a view made here may be changed in place later, like any other result.
    y = forward(x.detach(), recording).variable_data();
  }
  if (recording) {
    auto node = std::shared_ptr<FrozenNode>(new FrozenNode(shared_from_this(), x.sizes().vec()), ta::deleteNode);
    node->set_next_edges(ta::collect_next_edges(x));
    ta::set_history(y, node);
  }
  return y;
}

struct Linear : Layer {
  Linear(const at::Tensor& weight, const at::Tensor* bias) : Layer(weight, bias) {
    // In f32 the plain product is as fast at every shape of a U-Net.
    packs = packs && weight.scalar_type() == at::kBFloat16;
  }

  static at::Tensor product(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) {
    return call("mkldnn::_linear_pointwise", x.contiguous(), w, optional(b), "none", no_scalars(), "");
  }

  static at::Tensor pack(const at::Tensor& w, int64_t rows) {
    return call("mkldnn::_reorder_linear_weight", w, rows);
  }

  at::Tensor forward(const at::Tensor& x, bool recording) override {
    if (!packs || x.numel() == 0) return at::linear(x, plain(), bias);
    {
      std::lock_guard<std::mutex> lock(packing);
      const auto rows = x.numel() / x.size(-1);
      if (!decided) {
        decided = true;
        is_matrix = one_copy(recording, rows);
        if (!is_matrix) {
          packed = pack(weight, rows);
          weight = at::Tensor();
          settle(packed);
        }
      }
    }
    return is_matrix ? at::linear(x, weight, bias) : product(x, packed, bias);
  }

  at::Tensor backward(const at::Tensor& gradient, at::IntArrayRef) override {
    if (!packs || is_matrix || gradient.numel() == 0) return at::matmul(gradient, plain());
    {
      std::lock_guard<std::mutex> lock(packing);
      if (!packed_back.defined()) {
        packed_back = pack(plain().t().contiguous(), gradient.numel() / gradient.size(-1));
        settle(packed_back);
      }
    }
    return product(gradient, packed_back, at::Tensor());
  }
};

struct Conv2d : Layer {
  Conv2d(const at::Tensor& weight, const at::Tensor* bias, int64_t stride, int64_t padding)
      : Layer(weight, bias), stride{stride, stride}, padding{padding, padding}, shape(weight.sizes().vec()) {
    TORCH_CHECK(weight.dim() == 4, "a convolution's weight is [out, in, height, width], not of rank ", weight.dim());
    // The input gradient of a stride-1 convolution is a convolution with the weight flipped and transposed.
    back_padding = {weight.size(2) - 1 - padding, weight.size(3) - 1 - padding};
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

  at::Tensor forward_matrix(const at::Tensor& x) const {
    const auto y = at::linear(columns(x), weight, bias);
    return y.view({x.size(0), out_size(x.size(2), 2), out_size(x.size(3), 3), shape[0]}).permute({0, 3, 1, 2});
  }

  at::Tensor backward_matrix(const at::Tensor& gradient, at::IntArrayRef x_sizes) const {
    const auto pixels = gradient.permute({0, 2, 3, 1});
    const auto h = pixels.size(1), w = pixels.size(2), p = padding[0], s = stride[0];
    const auto taps = at::mm(pixels.reshape({-1, shape[0]}), weight).view({-1, h, w, shape[2], shape[3], shape[1]});
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
    if (!packs || x.numel() == 0) return at::conv2d(x, plain(), bias, stride, padding);
    TORCH_CHECK(x.dim() == 4, "a convolution takes [batch, channels, height, width], not rank ", x.dim());
    {
      std::lock_guard<std::mutex> lock(packing);
      if (!decided) {
        decided = true;
        const auto pixels = x.size(0) * out_size(x.size(2), 2) * out_size(x.size(3), 3);
        is_matrix = one_copy(recording, pixels);
        if (is_matrix) {
          weight = weight.permute({0, 2, 3, 1}).reshape({shape[0], -1});
          settle(weight);
        } else {
          packed = pack(weight, padding, stride, x.sizes());
          weight = at::Tensor();
          settle(packed);
        }
      }
    }
    return is_matrix ? forward_matrix(x) : convolve(x, packed, bias, padding, stride);
  }

  at::Tensor backward(const at::Tensor& gradient, at::IntArrayRef x_sizes) override {
    if (is_matrix) return backward_matrix(gradient, x_sizes);
    if (!packs || !back_is_conv || gradient.numel() == 0) {
      const auto w = plain();
      // Only x's shape is read when no weight gradient is asked for: an expanded zero takes no memory.
      const auto x = gradient.new_zeros({1}).expand(x_sizes);
      return std::get<0>(at::convolution_backward(
          gradient, x, w, c10::nullopt, stride, padding, Ints{1, 1}, false, Ints{0, 0}, 1, {true, false, false}));
    }
    {
      std::lock_guard<std::mutex> lock(packing);
      if (!packed_back.defined()) {
        packed_back =
            pack(plain().flip({2, 3}).transpose(0, 1).contiguous(), back_padding, stride, gradient.sizes());
        settle(packed_back);
      }
    }
    return convolve(gradient, packed_back, at::Tensor(), back_padding, stride);
  }

  Ints stride, padding, back_padding, shape;
  bool back_is_conv;
};

} // namespace

using LayerHandle = std::shared_ptr<Layer>;

extern "C" {

// `bias` may be null.
int ext_frozen_linear(const at::Tensor* weight, const at::Tensor* bias, LayerHandle** out) {
  return ext::guarded([&] {
    TORCH_CHECK(weight->dim() == 2, "a linear layer's weight is [out, in], not of rank ", weight->dim());
    *out = new LayerHandle(std::make_shared<Linear>(*weight, bias));
  });
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
