#!/usr/bin/env python3
"""Loads the built-in base in Python and measures it against the bars of docs/toybox.md.

    toybox dataset --count 64 --seed 999 out/held-out
    check_toybox.py --base assets/toybox --pairs out/held-out --picture out/toybox.png

CLIPModel of transformers with the shipped tokenizer: its top-1 both ways on the pairs whose captions differ. The whole base in
StableDiffusionPipeline of diffusers: no key missing or left over in any part, and a picture that is not of one colour.
Exit code 1 if a bar is missed.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

BAR = 0.70
PROMPT = "a photo of a red teapot on the beach"


def pairs(folder: Path) -> tuple[torch.Tensor, list[str]]:
    """Pictures [B, 3, 128, 128] in [-1, 1] and captions; of equal captions only the first."""
    found: dict[str, Path] = {}
    for text in sorted(folder.glob("*.txt")):
        found.setdefault(text.read_text().strip(), text.with_suffix(".png"))
    pixels = [np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 127.5 - 1 for path in found.values()]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), list(found)


def load_strictly(kind, folder: Path):
    """A model in f32; exits where the file's keys are not the model's."""
    model, report = kind.from_pretrained(folder, output_loading_info=True, torch_dtype=torch.float32)
    if report["missing_keys"] or report["unexpected_keys"]:
        sys.exit(f"{folder}: keys do not fit: {report}")
    return model.eval()


def judge(base: Path, folder: Path) -> bool:
    model = load_strictly(CLIPModel, base / "clip")
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    pictures, captions = pairs(folder)
    ids = tokenizer(captions, padding="max_length", max_length=77, return_tensors="pt").input_ids
    logits = model(input_ids=ids, pixel_values=pictures).logits_per_image
    right = torch.arange(len(captions))
    to_caption = (logits.argmax(1) == right).float().mean().item()
    to_picture = (logits.argmax(0) == right).float().mean().item()
    print(f"CLIP, {len(captions)} pairs: top-1 {to_caption:.2f} to the caption, {to_picture:.2f} to the picture (bar {BAR})")
    return min(to_caption, to_picture) >= BAR


def draw(base: Path, path: Path) -> bool:
    for kind, part in (CLIPTextModel, "text_encoder"), (AutoencoderKL, "vae"), (UNet2DConditionModel, "unet"):
        load_strictly(kind, base / part)
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(1)
    picture = pipeline(PROMPT, num_inference_steps=25, guidance_scale=4.0, generator=noise).images[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    deviation = np.asarray(picture, dtype=np.float32).std()
    print(f"StableDiffusionPipeline: {PROMPT!r} in {path}, {picture.size}, deviation {deviation:.0f} of 255")
    return deviation > 10


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="folder written by `toybox dataset`")
    parser.add_argument("--picture", type=Path, required=True, help="the PNG file to draw")
    args = parser.parse_args()
    matched, drawn = judge(args.base, args.pairs), draw(args.base, args.picture)
    return 0 if matched and drawn else 1


if __name__ == "__main__":
    sys.exit(main())
