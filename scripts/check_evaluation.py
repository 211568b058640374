#!/usr/bin/env python3
"""Computes the scores of CLIP and DINO of an evaluation again with transformers, from the same picture files and weights.

    personalize evaluate ... --output out/bear
    check_evaluation.py --evaluation out/bear --photos assets/toybox/concepts/bear \\
        --clip assets/toybox/clip --tokenizer assets/toybox/tokenizer [--dino DIR] [--masks DIR]

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
from PIL import Image, ImageOps
from transformers import CLIPModel, CLIPTokenizer, ViTModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

ALLOWED = 1e-4
NEUTRAL = (128, 128, 128)


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluation", type=Path, required=True, help="folder with results.json")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="where it is not in --clip")
    parser.add_argument("--dino", type=Path, help="where DINO judged")
    parser.add_argument("--masks", type=Path, help="where the photos were masked; grey ones")
    args = parser.parse_args()

    results = json.loads((args.evaluation / "results.json").read_text("utf-8"))
    protocol = results["protocol"]
    model = CLIPModel.from_pretrained(args.clip, torch_dtype=torch.float32).eval()
    processor = CLIPImageProcessorPil.from_pretrained(args.clip)
    tokenizer = CLIPTokenizer.from_pretrained(args.tokenizer or args.clip)

    def unit(vectors: torch.Tensor) -> torch.Tensor:
        return vectors.double() / vectors.double().norm(dim=-1, keepdim=True)

    def by_clip(images: list[Image.Image]) -> torch.Tensor:
        pixels = processor(images, return_tensors="pt").pixel_values
        return unit(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output))

    likenesses = {"clip_i": by_clip}
    if args.dino:
        dino = ViTModel.from_pretrained(args.dino, torch_dtype=torch.float32, add_pooling_layer=False).eval()
        side = dino.config.image_size
        to_side = CLIPImageProcessorPil(
            size={"shortest_edge": side * 256 // 224},
            crop_size={"height": side, "width": side},
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        )
        likenesses["dino"] = lambda images: unit(
            dino(to_side(images, return_tensors="pt").pixel_values).last_hidden_state[:, 0]
        )

    def photo(name: str) -> Image.Image:
        image = ImageOps.exif_transpose(Image.open(args.photos / name)).convert("RGB")
        if not args.masks:
            return image
        mask = Image.open(next(args.masks.glob(Path(name).stem + ".*"))).convert("L")
        return Image.composite(image, Image.new("RGB", image.size, NEUTRAL), mask)

    def text(words: str) -> torch.Tensor:
        ids = tokenizer([words], padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        return unit(model.text_projection(model.text_model(input_ids=ids).pooler_output))[0]

    photos = [photo(file["name"]) for file in protocol["photos"]]
    photos = {metric: encode(photos) for metric, encode in likenesses.items()}
    gaps: dict[str, float] = {}

    def held(metric: str, ours: float, theirs: float) -> None:
        gaps[metric] = max(gaps.get(metric, 0.0), abs(ours - theirs))

    stand_ins = {"clip_t_class": protocol["class"], "clip_t_drop": ""}
    for prompt in results["prompts"]:
        images = [Image.open(args.evaluation / picture["file"]).convert("RGB") for picture in prompt["pictures"]]
        for metric, encode in likenesses.items():
            held(metric, prompt["scores"][metric], (encode(images) @ photos[metric].T).mean().item())
        drawn = by_clip(images)
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
