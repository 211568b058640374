#!/usr/bin/env python3
"""Writes the fixtures of the parity tests, or a complete small base model.

    make_fixtures.py [--out tests/fixtures] [--only NAME]...   the fixtures, or some of them
    make_fixtures.py --check                                   compares fresh ones with those of --out
    make_fixtures.py --base DIR --family sd1 [--variant fp16] [--max-shard-size 1MB]
                                                               a folder with weights, by save_pretrained

The versions in requirements.txt made the committed files; see fixtures/seeded.py for the weights.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
warnings.filterwarnings("ignore", category=FutureWarning)

import torch
import transformers
from safetensors import safe_open

from fixtures import clip, core, evaluation, families, fpdm, generation, metrics, neti, perceptual, photos, tokens, training, unet, vae, vision

WRITERS = {
    "folders": families.write,
    "tokenizer": tokens.write,
    "clip": clip.write,
    "vision": vision.write,
    "fpdm": fpdm.write,
    "evaluation": evaluation.write,
    "unet": unet.write,
    "vae": vae.write,
    "training": training.write,
    "neti": neti.write,
    "core": core.write,
    "generate": generation.write,
    "metrics": metrics.write,
    "perceptual": perceptual.write,
    "photos": photos.write,
}
if importlib.util.find_spec("fixtures.samplers"):
    from fixtures import samplers

    WRITERS["samplers"] = samplers.write


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def differences(kept: Path, fresh: Path) -> list[str]:
    """What of `fresh` is not in `kept`. Numbers may differ by a rounding, as processors do."""
    if not kept.is_file():
        return [f"{kept} is missing"]
    if fresh.suffix != ".safetensors":
        same = kept.read_bytes() == fresh.read_bytes()
        if not same and fresh.suffix == ".json":
            same = json.loads(kept.read_text("utf-8")) == json.loads(fresh.read_text("utf-8"))
        return [] if same else [f"{kept} differs"]
    (old, old_metadata), (new, new_metadata) = read(kept), read(fresh)
    found = [] if old_metadata == new_metadata else [f"{kept}: the metadata differ"]
    if old.keys() != new.keys():
        return [*found, f"{kept}: the names {sorted(old.keys() ^ new.keys())} are in one of the two only"]
    for name, tensor in new.items():
        if old[name].shape != tensor.shape or old[name].dtype != tensor.dtype:
            found.append(f"{kept}: {name} has another shape or type")
            continue
        gap = (old[name].double() - tensor.double()).abs().max().item() if tensor.numel() else 0.0
        allowed = {torch.float32: 1e-5 * tensor.double().abs().max().item(), torch.uint8: 1}.get(tensor.dtype, 0)
        if gap > allowed:
            found.append(f"{kept}: {name} differs by {gap:.3g}, allowed are {allowed:.3g}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests/fixtures")
    parser.add_argument("--only", action="append", choices=list(WRITERS), help="one kind of fixture; may be repeated")
    parser.add_argument("--check", action="store_true", help="write nothing; compare fresh fixtures with --out")
    parser.add_argument("--base", type=Path, help="write a complete model folder here instead")
    parser.add_argument("--family", choices=families.FAMILIES, default="sd1")
    parser.add_argument("--variant", help="file variant of --base; fp16 also halves the weights")
    parser.add_argument("--max-shard-size", help="split the weights of --base into files of at most this size")
    args = parser.parse_args()

    transformers.utils.logging.disable_progress_bar()
    # One thread: the order of sums, and so the last bit, does not depend on the machine's cores.
    torch.set_num_threads(1)
    if args.base:
        families.write_base(args.base, args.family, args.variant, args.max_shard_size)
        print(args.base)
        return 0
    names = args.only or list(WRITERS)
    if not args.check:
        for name in names:
            WRITERS[name](args.out)
            print(f"{name}: written below {args.out}", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        for name in names:
            WRITERS[name](fresh)
        files = sorted(path for path in fresh.rglob("*") if path.is_file())
        found = [line for path in files for line in differences(args.out / path.relative_to(fresh), path)]
    print("\n".join(found) or f"{len(files)} files agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
