#!/usr/bin/env python3
"""Runs the commands that refusals of other programs' embeddings name, on files as those programs write them.

    test_conversions.py [target/release/personalize]

Needs torch, safetensors and pillow. Each file is refused with a command; the command's output must be read and hold the numbers.
"""

import base64
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file


def inspect(binary: str, file: Path) -> subprocess.CompletedProcess:
    return subprocess.run([binary, "concept", "inspect", file], capture_output=True, text=True)


def picture(document: dict, file: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("sd-ti-embedding", base64.b64encode(json.dumps(document).encode()).decode())
    Image.new("RGB", (8, 8)).save(file, pnginfo=text)


class Bomb:
    def __init__(self, witness: str):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


def main() -> None:
    binary = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parents[1] / "target/release/personalize")
    one, two = torch.randn(768), torch.randn(2, 768)
    web_ui = {"string_to_token": {"*": 265}, "name": "x", "step": 5, "sd_checkpoint": None}
    with tempfile.TemporaryDirectory() as name:
        folder, witness = Path(name), Path(name) / "witness"
        torch.save({"<cat>": one}, folder / "diffusers.bin")
        torch.save(web_ui | {"string_to_param": {"*": torch.nn.Parameter(two)}}, folder / "a cat's.pt")
        torch.save(web_ui | {"string_to_param": {"*": two}}, folder / "old.pt", _use_new_zipfile_serialization=False)
        document = web_ui | {"string_to_param": {"*": {"TORCHTENSOR": two.tolist()}}}
        picture(document, folder / "picture.png")
        def command_for(file: str) -> list[str]:
            refused = inspect(binary, folder / file)
            assert refused.returncode == 3, refused
            words = shlex.split(refused.stderr[refused.stderr.index("python3 -c") :])
            return [sys.executable, *words[1:]]

        for file, expected in [("diffusers.bin", one), ("a cat's.pt", two), ("old.pt", two), ("picture.png", two)]:
            subprocess.run(command_for(file), check=True)
            converted = (folder / file).with_suffix(".safetensors")
            (found,) = load_file(converted).values()
            assert torch.equal(found, expected), file
            read = inspect(binary, converted)
            assert read.returncode == 0, read.stderr

        torch.save({"<cat>": one, "x": Bomb(str(witness))}, folder / "bomb.bin")
        assert subprocess.run(command_for("bomb.bin"), capture_output=True).returncode != 0
        assert not witness.exists(), "the command ran a program from the file"
    print("conversions: ok")


if __name__ == "__main__":
    main()
