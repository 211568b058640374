// A graph node that recomputes its segment in the backward pass, and gradients with given output gradients.
#include "ext.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>

#include <mutex>
#include <stdexcept>
#include <vector>

namespace ta = torch::autograd;

namespace {

// Runs the Rust segment on borrowed inputs; gives an owned output, or 1 with the message in ext_error.
using Run = int (*)(void* segment, const at::Tensor* const* inputs, size_t count, Handle* output);
using Drop = void (*)(void* segment);

struct Checkpoint : public ta::Node {
  Checkpoint(void* segment, Run run, Drop drop) : segment(segment), run(run), drop(drop) {}
  ~Checkpoint() override { drop(segment); }

  std::string name() const override { return "Checkpoint"; }

  ta::variable_list apply(ta::variable_list&& gradients) override {
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(!c10::GradMode::is_enabled(), "a checkpointed segment can be differentiated only once (create_graph)");
    ta::variable_list result(saved.size());
    if (!gradients[0].defined()) return result;

    ta::variable_list inputs;
    std::vector<const at::Tensor*> handles;
    inputs.reserve(saved.size());
    for (auto& s : saved) {
      auto original = s.unpack();
      inputs.push_back(original.detach().set_requires_grad(original.requires_grad()));
      handles.push_back(&inputs.back());
    }

    at::Tensor output;
    {
      c10::AutoGradMode recording(true);
      Handle raw = nullptr;
      if (run(segment, handles.data(), handles.size(), &raw) != 0) throw std::runtime_error(ext_error());
      TORCH_CHECK(raw != nullptr, "a checkpointed segment gave no tensor");
      output = std::move(*raw);
      delete raw;
    }
    // Weights inside the segment that learn receive their .grad here, as they would without the checkpoint.
    if (output.requires_grad()) ta::backward({output}, {gradients[0]});
    for (size_t i = 0; i < inputs.size(); ++i) result[i] = inputs[i].grad();
    return result;
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& s : saved) s.reset_data();
  }

  void* segment;
  Run run;
  Drop drop;
  std::vector<ta::SavedVariable> saved;
};

ta::variable_list list(const at::Tensor* const* tensors, size_t count) {
  ta::variable_list result;
  result.reserve(count);
  for (size_t i = 0; i < count; ++i) result.push_back(*tensors[i]);
  return result;
}

} // namespace

extern "C" {

bool ext_grad_enabled() { return c10::GradMode::is_enabled(); }

// Takes `segment` in every case. `output` is what the segment gave for `inputs` without a graph.
int ext_checkpoint(
    void* segment, Run run, Drop drop, const at::Tensor* const* inputs, size_t count, const at::Tensor* output,
    Handle* out) {
  std::shared_ptr<Checkpoint> node;
  return ext::guarded([&] {
    node = std::shared_ptr<Checkpoint>(new Checkpoint(segment, run, drop), ta::deleteNode);
    auto variables = list(inputs, count);
    node->set_next_edges(ta::collect_next_edges(variables));
    for (const auto& v : variables) node->saved.emplace_back(v, /*is_output=*/false);
    auto result = output->detach();
    ta::set_history(result, node);
    *out = new at::Tensor(std::move(result));
  });
}

// `output_gradients` may be null (ones). `results` has room for `input_count` handles; null where unused.
int ext_grad(
    const at::Tensor* const* outputs, size_t output_count, const at::Tensor* const* inputs, size_t input_count,
    const at::Tensor* const* output_gradients, bool retain_graph, Handle* results) {
  return ext::guarded([&] {
    auto seeds = output_gradients ? list(output_gradients, output_count) : ta::variable_list{};
    auto found = ta::grad(
        list(outputs, output_count), list(inputs, input_count), seeds, retain_graph, /*create_graph=*/false,
        /*allow_unused=*/true);
    for (size_t i = 0; i < input_count; ++i)
      results[i] = found[i].defined() ? new at::Tensor(std::move(found[i])) : nullptr;
  });
}

} // extern "C"
