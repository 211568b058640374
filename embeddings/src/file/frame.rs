//! The shapes of what no other program may read as a word.
//!
//! Other programs tell an embedding by its shape alone: `ComfyUI` takes a file's first tensor if its last dimension is the text
//! width, `InvokeAI` looks at the first dimension, stable-diffusion.cpp at the last of any tensor, AUTOMATIC1111, kohya and diffusers
//! take whatever stands alone. A dimension of one before and behind is a width to none of them, so each refuses the file
//! instead of drawing something else.

use tch::Tensor;

/// Gives the shape that a tensor of this shape is written in: `[1, …, 1]`.
pub(super) fn around(shape: &[i64]) -> Vec<i64> {
    [&[1], shape, &[1]].concat()
}

/// Takes off what [`around`] puts around a shape.
pub(super) fn taken_off(name: &str, tensor: &Tensor) -> Result<Tensor, String> {
    match tensor.size()[..] {
        [1, ref shape @ .., 1] => Ok(tensor.reshape(shape)),
        ref other => Err(format!(
            "the tensor {name} is {other:?}, but [1, ..., 1] was expected; copy or train it again"
        )),
    }
}
