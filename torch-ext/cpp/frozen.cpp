// Convolutions and linear layers whose weights never change: laid out once for oneDNN, differentiated in x only.
#include "ext.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
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
  virtual at::Tensor forward(const at::Tensor& x) = 0;
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

  bool packs;
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
  at::Tensor y;
  {
    c10::AutoGradMode recording(false);
    y = forward(x.detach());
  }
  if (c10::GradMode::is_enabled() && x.requires_grad()) {
    auto node = std::shared_ptr<FrozenNode>(new FrozenNode(shared_from_this(), x.sizes().vec()), ta::deleteNode);
    node->set_next_edges(ta::collect_next_edges(x));
    ta::set_history(y, node);
  }
  return y;
}

struct Linear : Layer {
  using Layer::Layer;

  static at::Tensor product(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) {
    return call("mkldnn::_linear_pointwise", x.contiguous(), w, optional(b), "none", no_scalars(), "");
  }

  static at::Tensor pack(const at::Tensor& w, int64_t rows) {
    return call("mkldnn::_reorder_linear_weight", w, rows);
  }

  at::Tensor forward(const at::Tensor& x) override {
    if (!packs || x.numel() == 0) return at::linear(x, plain(), bias);
    {
      std::lock_guard<std::mutex> lock(packing);
      if (!packed.defined()) {
        packed = pack(weight, x.numel() / x.size(-1));
        weight = at::Tensor();
        settle(packed);
      }
    }
    return product(x, packed, bias);
  }

  at::Tensor backward(const at::Tensor& gradient, at::IntArrayRef) override {
    if (!packs || gradient.numel() == 0) return at::matmul(gradient, plain());
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
      : Layer(weight, bias), stride{stride, stride}, padding{padding, padding} {
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

  at::Tensor forward(const at::Tensor& x) override {
    if (!packs || x.numel() == 0) return at::conv2d(x, plain(), bias, stride, padding);
    TORCH_CHECK(x.dim() == 4, "a convolution takes [batch, channels, height, width], not rank ", x.dim());
    {
      std::lock_guard<std::mutex> lock(packing);
      if (!packed.defined()) {
        packed = pack(weight, padding, stride, x.sizes());
        weight = at::Tensor();
        settle(packed);
      }
    }
    return convolve(x, packed, bias, padding, stride);
  }

  at::Tensor backward(const at::Tensor& gradient, at::IntArrayRef x_sizes) override {
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

  Ints stride, padding, back_padding;
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
