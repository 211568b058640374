#!/usr/bin/env python3
"""Each method's steps beside those of textual inversion, in turns, on the same weights; a table of BENCHMARKS.md.

    cargo build --release -p pipelines --example bench
    scripts/bench_methods.py --weights target/bench/sd15 [--dtype bf16] [--rounds 3]

A row's round is a fresh process of the method and one of plain textual inversion (for drawing: of no concept), a warm-up
step each and a few timed ones. A ratio is the method's time by the plain one's in the same round; given are the median
over the rounds and their range. CPU seconds hardly depend on the neighbours, wall seconds do. Weights are those that
`scripts/bench.py` draws.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

from bench import Side, cell, run

ROWS = ["train:core", "train:core/paper-literal", "train:core/official-compat", "train:core/fast", "train:xti", "train:neti",
        "train:neti/core", "train:cones", "denoise:ti", "denoise:xti", "denoise:neti", "denoise:cones"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(__file__).resolve().parent.parent / "target"
    parser.add_argument("--bench", type=Path, default=target / "release/examples/bench")
    parser.add_argument("--weights", type=Path, default=target / "bench/sd15", help="folder of a base")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--rows", nargs="+", default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()

    environment = dict(os.environ, OMP_WAIT_POLICY="passive", OMP_NUM_THREADS=str(args.threads))

    def measure(what: str, side: Side) -> None:
        command = [str(args.bench), what, str(args.weights), args.dtype, str(args.warmup), str(args.runs), str(args.threads)]
        side.add(run(command, environment))

    print("| step | kind | CPU s | plain, CPU s | CPU ratio | wall ratio | peak MB | plain, peak MB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for what in args.rows:
        ours, plain = Side(), Side()
        for _ in range(args.rounds):
            measure(what, ours)
            measure(what.split(":")[0], plain)
        middle = statistics.median
        row = [what.replace(":", ", "), args.dtype, f"{middle(ours.cpu):.3f}", f"{middle(plain.cpu):.3f}", cell(ours.cpu, plain.cpu),
               cell(ours.wall, plain.wall), f"{middle(ours.peak_mb):.0f}", f"{middle(plain.peak_mb):.0f}"]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
