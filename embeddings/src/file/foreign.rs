//! Files of other tools: what they hold, and how to convert what is not read.

use std::path::Path;

use super::{ConceptRecord, Origin, TOKEN_VECTORS, Tensors};
use crate::Xti;

/// Keys that say nothing of the word.
const KEYS_WITHOUT_A_WORD: [&str; 5] = ["emb_params", "emp_params", "clip_l", "clip_h", "*"];
/// Ends of the keys under which `OneTrainer` writes an output embedding.
const OUTPUT_KEYS: [&str; 4] = ["emp_params_out", "emb_params_out", "clip_l_out", "clip_g_out"];

/// Saves the embedding of a pickle that diffusers, kohya or AUTOMATIC1111 wrote; nothing in it is run.
const FROM_PICKLE: &str = "import sys, torch, safetensors.torch as s; \
    d = torch.load(sys.argv[1], 'cpu', weights_only=True); d = d.get('string_to_param', d); \
    s.save_file({k: v.detach().clone() for k, v in d.items()}, sys.argv[2])";
/// Saves the embedding that AUTOMATIC1111 put into a picture's text.
const FROM_PICTURE: &str = "import sys, json, base64, torch, safetensors.torch as s; from PIL import Image; \
    d = json.loads(base64.b64decode(Image.open(sys.argv[1]).text['sd-ti-embedding']))['string_to_param']; \
    s.save_file({k: torch.tensor(v['TORCHTENSOR']) for k, v in d.items()}, sys.argv[2])";

/// Gives the command that converts a file by a Python program.
fn command(program: &str, path: &Path) -> String {
    let quoted = |path: &Path| {
        let text = path.to_string_lossy();
        // A NUL is the only thing that cannot be quoted, and no path holds one.
        shlex::try_quote(&text).map_or_else(|_| text.to_string(), Into::into)
    };
    format!(
        "python3 -c \"{program}\" {} {}",
        quoted(path),
        quoted(&path.with_extension("safetensors"))
    )
}

/// Refuses what is no safetensors file and known by its first bytes.
pub(super) fn refuse_other_formats(path: &Path, bytes: &[u8]) -> Result<(), String> {
    // Of protocol 2 and later, alone or zipped as torch does it.
    if bytes.starts_with(b"PK\x03\x04") || matches!(bytes, [0x80, 2..=5, ..]) {
        return Err(format!(
            "a pickle, which can run programs and is never opened; convert files of NeTI's authors with \
             scripts/convert_neti.py, and an embedding of diffusers, kohya or AUTOMATIC1111 with {}",
            command(FROM_PICKLE, path)
        ));
    }
    if bytes.starts_with(b"\x89PNG") {
        return Err(format!(
            "a picture and no safetensors file; if AUTOMATIC1111 put an embedding into it, take it out with {}",
            command(FROM_PICTURE, path)
        ));
    }
    if bytes.is_empty() || bytes.starts_with(b"version https://git-lfs") {
        let what = if bytes.is_empty() { "an empty file" } else { "a Git LFS pointer" };
        return Err(format!("{what} and not a concept; copy or fetch it again"));
    }
    // The header follows its length.
    if bytes.get(8).is_some_and(|first| *first != b'{') {
        return Err("no safetensors file; give the file of a concept".into());
    }
    Ok(())
}

/// Tells what a file without our record is; other tools name a concept by the key of its tensor or by the file.
pub(super) fn record(path: &Path, tensors: &Tensors) -> Result<(ConceptRecord, Origin), String> {
    let names: Vec<&str> = tensors.keys().map(String::as_str).collect();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let of_the_file = format!("<{stem}>");
    let is_output = |name: &&&str| OUTPUT_KEYS.iter().any(|end| name.ends_with(end));
    if let Some(output) = names.iter().find(is_output) {
        return Err(format!(
            "{output} is an output embedding of OneTrainer: rows that stand in place of what the text encoder gives, and no \
             word's vectors, so it is not read; train it there with the output embedding switched off"
        ));
    }
    if names == Xti::kohya_names() {
        let origin = Origin::Foreign { key: names[0].to_owned() };
        return Ok((ConceptRecord::foreign("xti", of_the_file), origin));
    }
    let [key] = names[..] else {
        return Err(format!(
            "a concept of another tool is one tensor [vectors, width], or sixteen of an XTI, but this file holds \
             {}: {}; give the file of a Textual Inversion for Stable Diffusion 1.x or 2.x",
            names.len(),
            names.iter().take(6).copied().collect::<Vec<_>>().join(", ")
        ));
    };
    let token = if KEYS_WITHOUT_A_WORD.contains(&key) { of_the_file } else { key.to_owned() };
    let origin = Origin::Foreign { key: key.to_owned() };
    Ok((ConceptRecord::foreign(TOKEN_VECTORS[0], token), origin))
}
