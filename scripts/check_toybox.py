#!/usr/bin/env python3
"""Loads the built-in base in Python and measures it against the bars of docs/toybox.md.

    toybox dataset --count 64 --seed 999 out/held-out
    check_toybox.py --base assets/toybox --pairs out/held-out

So far: CLIPModel of transformers with the shipped tokenizer, and its top-1 both ways on the pairs whose captions differ.
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
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

BAR = 0.70


def pairs(folder: Path) -> tuple[torch.Tensor, list[str]]:
    """Pictures [B, 3, 128, 128] in [-1, 1] and captions; of equal captions only the first."""
    found: dict[str, Path] = {}
    for text in sorted(folder.glob("*.txt")):
        found.setdefault(text.read_text().strip(), text.with_suffix(".png"))
    pixels = [np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 127.5 - 1 for path in found.values()]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), list(found)


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="folder written by `toybox dataset`")
    args = parser.parse_args()

    model, report = CLIPModel.from_pretrained(args.base / "clip", output_loading_info=True, torch_dtype=torch.float32)
    if report["missing_keys"] or report["unexpected_keys"]:
        print(f"keys do not fit: {report}", file=sys.stderr)
        return 1
    tokenizer = CLIPTokenizer.from_pretrained(args.base / "tokenizer")
    pictures, captions = pairs(args.pairs)
    ids = tokenizer(captions, padding="max_length", max_length=77, return_tensors="pt").input_ids
    logits = model.eval()(input_ids=ids, pixel_values=pictures).logits_per_image
    right = torch.arange(len(captions))
    to_caption = (logits.argmax(1) == right).float().mean().item()
    to_picture = (logits.argmax(0) == right).float().mean().item()
    print(f"CLIP, {len(captions)} pairs: top-1 {to_caption:.2f} to the caption, {to_picture:.2f} to the picture (bar {BAR})")
    return 0 if min(to_caption, to_picture) >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
