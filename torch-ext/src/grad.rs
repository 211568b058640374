//! Gradients of chosen tensors, without touching anyone's `.grad`.

use tch::Tensor;

use crate::TorchError;
use crate::ffi;

/// The gradients of `outputs`, weighted by `grad_outputs` (ones if `None`, which scalars allow), for each of `inputs`.
///
/// `None` stands where an input does not reach any output. With `retain_graph` the graph can be walked once more. A
/// segment under [`crate::checkpoint`] is served too; weights *inside* it that learn get their `.grad` instead.
pub fn grad(
    outputs: &[&Tensor],
    inputs: &[&Tensor],
    grad_outputs: Option<&[&Tensor]>,
    retain_graph: bool,
) -> Result<Vec<Option<Tensor>>, TorchError> {
    crate::init();
    if let Some(given) = grad_outputs
        && given.len() != outputs.len()
    {
        let message =
            format!("{} outputs need as many output gradients, not {}", outputs.len(), given.len());
        return Err(TorchError::Libtorch { call: "grad", message });
    }
    let output_handles = ffi::handles(outputs.iter().copied());
    let input_handles = ffi::handles(inputs.iter().copied());
    let seeds = grad_outputs.map(|given| ffi::handles(given.iter().copied()));
    let mut results = vec![std::ptr::null_mut(); inputs.len()];
    // SAFETY: the handles are those of tensors borrowed by this call, with their true counts (the seeds' was checked
    // above); `results` has room for one handle an input, written only on success.
    let status = unsafe {
        ffi::ext_grad(
            output_handles.as_ptr(),
            output_handles.len(),
            input_handles.as_ptr(),
            input_handles.len(),
            seeds.as_ref().map_or(std::ptr::null(), Vec::as_ptr),
            retain_graph,
            results.as_mut_ptr(),
        )
    };
    ffi::checked("grad", status)?;
    // SAFETY: each non-null result is a fresh handle that nobody else owns.
    Ok(results
        .into_iter()
        .map(|raw| (!raw.is_null()).then(|| unsafe { Tensor::from_ptr(raw) }))
        .collect())
}
