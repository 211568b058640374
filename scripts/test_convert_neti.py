#!/usr/bin/env python3
"""Checks convert_neti.py on files like the authors', one of which would run a command if it were unpickled freely."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open

CONVERTER = Path(__file__).with_name("convert_neti.py")
WIDTH, HIDDEN, ANCHORS, FREQUENCIES = 8, 6, 160, 12


class Encoder(torch.nn.Module):
    """As in the release: the frequencies are a plain attribute of a pickled module."""

    def __init__(self):
        super().__init__()
        self.w = torch.randn(FREQUENCIES, 2)


class Bomb:
    def __init__(self, witness: str):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


def linear(outputs: int, inputs: int, name: str) -> dict:
    return {f"{name}.weight": torch.randn(outputs, inputs), f"{name}.bias": torch.randn(outputs)}


def norm(name: str) -> dict:
    return {f"{name}.weight": torch.randn(HIDDEN), f"{name}.bias": torch.randn(HIDDEN)}


def convert(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, CONVERTER, "--mapper", folder / "mapper.pt", "--embeds", folder / "embeds.bin"]
    return subprocess.run([*command, "--output", folder / "cat.safetensors"], capture_output=True, text=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, encoder = Path(name), Encoder()
        first = linear(ANCHORS, 2 * FREQUENCIES, "input_layer")
        state = {
            **first,
            **{key.replace("input_layer", "net.0"): value for key, value in first.items()},
            **linear(HIDDEN, ANCHORS, "net.1"),
            **norm("net.2"),
            **linear(HIDDEN, HIDDEN, "net.4"),
            **norm("net.5"),
            **linear(2 * WIDTH, HIDDEN, "output_layer.0"),
        }
        cfg = {"model": {"target_norm": 0.4, "output_bypass": True}, "data": {"super_category_token": "cat"}}
        torch.save({"state_dict": state, "cfg": cfg, "encoder": encoder}, folder / "mapper.pt")
        torch.save({"<cat>": torch.randn(WIDTH)}, folder / "embeds.bin")
        done = convert(folder)
        assert done.returncode == 0, done.stderr
        with safe_open(folder / "cat.safetensors", "pt") as file:
            found = {key: file.get_tensor(key) for key in file.keys()}
            assert all(tensor.shape[0] == tensor.shape[-1] == 1 for tensor in found.values())
            assert torch.equal(found["encoder.w"][0, ..., 0], encoder.w)
            kept = [key for key in state if not key.startswith("net.0")]
            assert all(torch.equal(found[key][0, ..., 0], state[key]) for key in kept)
            assert len(found) == 14 and '"target_norm": 0.4' in file.metadata()["personalize.concept"]

        witness = folder / "witness"
        torch.save({"state_dict": state, "cfg": cfg, "encoder": encoder, "x": Bomb(str(witness))}, folder / "mapper.pt")
        convert(folder)
        assert not witness.exists(), "the converter ran a command from the file"
        (folder / "embeds.bin").write_bytes(b"no pickle")
        refused = convert(folder)
        assert refused.returncode == 1 and refused.stderr.startswith("error: "), refused.stderr
    print("convert_neti.py: ok")


if __name__ == "__main__":
    main()
