#!/usr/bin/env python3
"""Draws with Python diffusers what we drew with the same base, concept and seed, and compares.

    check_interop.py --base DIR --concept cat.safetensors --token '<cat>' \\
        --prompt 'a photo of <cat> in the snow' --seed 7 --picture ours.png

The concept is loaded by load_textual_inversion(FILE, token=TOKEN). Exit code 1 if a value of a pixel is
more than 2 (of 255) away from ours.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
warnings.filterwarnings("ignore", category=FutureWarning)

import torch
import transformers
from diffusers import StableDiffusionPipeline
from diffusers.utils.logging import disable_progress_bar
from PIL import Image

from fixtures.generation import SAMPLERS, draw

LIMIT = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="model folder in the Hugging Face layout")
    parser.add_argument("--concept", type=Path, help="our concept file; without it the prompt is drawn as it is")
    parser.add_argument("--token", help="the concept's placeholder, such as '<cat>'")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--negative-prompt", default="")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--picture", type=Path, required=True, help="our picture; its size is drawn")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--sampler", choices=["default", *SAMPLERS], default="default", help="default: the base's own")
    parser.add_argument("--variant", help="file variant of the base's weights, such as fp16")
    parser.add_argument("--save", type=Path, help="keep Python's picture here")
    args = parser.parse_args()
    if (args.concept is None) != (args.token is None):
        parser.error("--concept and --token go together")

    disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    # f32 whatever the files hold: half precision differs between implementations by more than the limit.
    pipe = StableDiffusionPipeline.from_pretrained(
        args.base, torch_dtype=torch.float32, safety_checker=None, variant=args.variant, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    if args.sampler != "default":
        pipe.scheduler = SAMPLERS[args.sampler].from_config(pipe.scheduler.config)
    if args.concept:
        pipe.load_textual_inversion(str(args.concept), token=args.token)

    ours = Image.open(args.picture).convert("RGB")
    width, height = ours.size
    theirs = draw(pipe, args.prompt, [args.seed], args.steps, args.guidance, width, height, args.negative_prompt)[0][0]
    if args.save:
        Image.fromarray(theirs.numpy()).save(args.save)
    ours = torch.frombuffer(bytearray(ours.tobytes()), dtype=torch.uint8).view(height, width, 3)
    gap = (ours.int() - theirs.int()).abs()
    print(f"largest difference {gap.max().item()} of 255, mean {gap.double().mean().item():.4f}, {width}x{height}")
    return 0 if gap.max().item() <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
