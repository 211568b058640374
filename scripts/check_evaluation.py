#!/usr/bin/env python3
"""Computes the CLIP scores of an evaluation again with transformers, from the same picture files and weights.

    personalize evaluate ... --output out/bear
    check_evaluation.py --evaluation out/bear --photos assets/toybox/concepts/bear \\
        --clip assets/toybox/clip --tokenizer assets/toybox/tokenizer

Prints the largest difference of each metric; exit code 1 if one is above 1e-4.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

ALLOWED = 1e-4


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluation", type=Path, required=True, help="folder with results.json")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="where it is not in --clip")
    args = parser.parse_args()

    results = json.loads((args.evaluation / "results.json").read_text("utf-8"))
    protocol = results["protocol"]
    model = CLIPModel.from_pretrained(args.clip, torch_dtype=torch.float32).eval()
    processor = CLIPImageProcessorPil.from_pretrained(args.clip)
    tokenizer = CLIPTokenizer.from_pretrained(args.tokenizer or args.clip)

    def unit(vectors: torch.Tensor) -> torch.Tensor:
        return vectors.double() / vectors.double().norm(dim=-1, keepdim=True)

    def pictures(files: list[Path]) -> torch.Tensor:
        pixels = processor([Image.open(file).convert("RGB") for file in files], return_tensors="pt").pixel_values
        return unit(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output))

    def text(words: str) -> torch.Tensor:
        ids = tokenizer([words], padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        return unit(model.text_projection(model.text_model(input_ids=ids).pooler_output))[0]

    photos = pictures([args.photos / photo["name"] for photo in protocol["photos"]])
    gaps: dict[str, float] = {}

    def held(metric: str, ours: float, theirs: float) -> None:
        gaps[metric] = max(gaps.get(metric, 0.0), abs(ours - theirs))

    stand_ins = {"clip_t_class": protocol["class"], "clip_t_drop": ""}
    for prompt in results["prompts"]:
        drawn = pictures([args.evaluation / picture["file"] for picture in prompt["pictures"]])
        held("clip_i", prompt["scores"]["clip_i"], (drawn @ photos.T).mean().item())
        for metric, word in stand_ins.items():
            if metric in prompt["scores"]:
                words = " ".join(prompt["template"].replace("{}", word).split())
                held(metric, prompt["scores"][metric], (drawn @ text(words)).mean().item())
        if "diversity" in prompt["scores"]:
            others = ~torch.eye(len(drawn), dtype=torch.bool)
            held("diversity", prompt["scores"]["diversity"], 1 - (drawn @ drawn.T)[others].mean().item())
    for metric, gap in gaps.items():
        print(f"{metric}: at most {gap:.1e} apart")
    return 0 if max(gaps.values()) <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
