#!/usr/bin/env python3
"""Our steps and PyTorch's in turns, A B A B, on the same weights; the table of BENCHMARKS.md.

    cargo build --release -p pipelines --example bench
    scripts/bench.py --python PEER/bin/python --peer PEER_FOLDER [--sizes small sd15] [--dtypes f32 bf16] [--rounds 3]

Every measurement is a fresh process that loads the weights, takes a warm-up step and times a few more; ours and theirs
alternate, one at a time. PEER_FOLDER holds the peer's script (`peer_sd15.py`): plain eager diffusers on the installed
PyTorch, with latents cached and only the concept's row in the optimiser, as we do it. Weights are drawn once, into
FOLDER/small and FOLDER/sd15, by the peer's seeded rule.

Two times are compared: wall seconds, which mean something on a quiet machine only, and CPU seconds of the process,
which hardly depend on the neighbours (`OMP_WAIT_POLICY=passive`, so that waiting threads sleep). A ratio is ours by
theirs of the same round; the table gives the median over the rounds and their range. The peak is that of the timed
steps. In training the peer's process still holds its VAE, which ours has dropped by then; its bytes are taken off
theirs, so that nothing is gained by it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

THEIR_NAMES = {"f32": "fp32", "bf16": "bf16"}
BYTES = {"f32": 4, "bf16": 2}


@dataclass
class Side:
    """The measurements of one side of a row: a median a round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def add(self, record: dict, less_mb: float = 0.0) -> None:
        samples = record["samples"]
        self.wall.append(statistics.median(s[0] for s in samples))
        self.cpu.append(statistics.median(s[1] for s in samples))
        self.others.append(statistics.mean(s[2] for s in samples))
        self.peak_mb.append(record["peak_mb"] - less_mb)


def run(command: list[str], environment: dict[str, str]) -> dict:
    """The last JSON line that a process prints."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    return json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])


def vae_mb(weights: Path, dtype: str) -> float:
    """The VAE's parameters in memory; the file is f32."""
    size = sum(f.stat().st_size for f in (weights / "vae").glob("*.safetensors"))
    return size / 4 * BYTES[dtype] / 2**20


def ratios(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    pairs = [a / b for a, b in zip(ours, theirs)]
    return statistics.median(pairs), min(pairs), max(pairs)


def cell(ours: list[float], theirs: list[float]) -> str:
    middle, low, high = ratios(ours, theirs)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def measure(args, size: str, dtype: str, what: str, environment: dict[str, str]) -> tuple[Side, Side]:
    weights, runs = args.weights / size, args.small_runs if size == "small" else args.runs
    ours, theirs = Side(), Side()
    their_dtype = THEIR_NAMES[dtype]
    verb = ["train", "--vae", "cached", "--optim", args.optim] if what == "train" else ["generate", "--what", "step"]
    their_command = [args.python, str(args.peer / "peer_sd15.py"), *verb, "--weights", str(weights), "--dtype", their_dtype,
                     "--threads", str(args.threads), "--warmup", str(args.warmup), "--runs", str(runs),
                     "--max-s", "0", "--wait-s", "0", *(["--small"] if size == "small" else [])]
    our_command = [str(args.ours.resolve()), what, str(weights), dtype, str(args.warmup), str(runs), str(args.threads)]
    for _ in range(args.rounds):
        ours.add(run(our_command, environment))
        theirs.add(run(their_command, environment), vae_mb(weights, dtype) if what == "train" else 0.0)
    return ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(__file__).resolve().parent.parent / "target"
    parser.add_argument("--ours", type=Path, default=target / "release/examples/bench",
                        help="the built example `bench` of the crate pipelines")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch, diffusers and transformers")
    parser.add_argument("--peer", type=Path, required=True, help="folder of peer_sd15.py")
    parser.add_argument("--weights", type=Path, default=target / "bench", help="folder for the random weights, 4.3 GB")
    parser.add_argument("--sizes", nargs="+", choices=["small", "sd15"], default=["small", "sd15"])
    parser.add_argument("--dtypes", nargs="+", choices=list(BYTES), default=["f32", "bf16"])
    parser.add_argument("--steps", nargs="+", choices=["train", "denoise"], default=["train", "denoise"])
    parser.add_argument("--optim", choices=["row", "table"], default="row", help="table: as diffusers' example does it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--runs", type=int, default=2, help="timed steps a process at the size of SD 1.5")
    parser.add_argument("--small-runs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--markdown", type=Path, help="append the table to this file")
    args = parser.parse_args()

    environment = dict(os.environ, OMP_WAIT_POLICY="passive", OMP_NUM_THREADS=str(args.threads))
    for size in args.sizes:
        if not (args.weights / size / "model_index.json").exists():
            small = ["--small"] if size == "small" else []
            command = [args.python, str(args.peer / "peer_sd15.py"), "make-weights", "--out", str(args.weights / size)]
            subprocess.run(command + small, check=True)

    head = ["size", "kind", "step", "ours, CPU s", "theirs, CPU s", "CPU ratio", "ours, wall s", "theirs, wall s", "wall ratio",
            "ours, peak MB", "theirs, peak MB", "peak ratio", "cores others used"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    print("\n".join(lines), flush=True)
    for size in args.sizes:
        for dtype in args.dtypes:
            for what in args.steps:
                ours, theirs = measure(args, size, dtype, what, environment)
                middle = statistics.median
                row = [size, dtype, what, f"{middle(ours.cpu):.3f}", f"{middle(theirs.cpu):.3f}", cell(ours.cpu, theirs.cpu),
                       f"{middle(ours.wall):.3f}", f"{middle(theirs.wall):.3f}", cell(ours.wall, theirs.wall),
                       f"{middle(ours.peak_mb):.0f}", f"{middle(theirs.peak_mb):.0f}", cell(ours.peak_mb, theirs.peak_mb),
                       f"{statistics.mean(ours.others):.1f} / {statistics.mean(theirs.others):.1f}"]
                lines.append("| " + " | ".join(row) + " |")
                print(lines[-1], flush=True)
    if args.markdown:
        with open(args.markdown, "a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
