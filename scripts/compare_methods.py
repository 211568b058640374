#!/usr/bin/env python3
"""All methods on the held-out concepts of the built-in base: the table and the pictures of docs/comparison.md.

    make build
    scripts/compare_methods.py --concepts teapot robot cat --rows ti core neti --steps 200
    scripts/compare_methods.py --seconds 60          # the same time for each method instead of the same steps

Each row is trained on the five photos of each concept and evaluated with `--prompts toybox`. What is done already in the
work folder is not done again, so the command goes on where it was stopped, and several may work on different concepts; a
row's folder is named after its settings. Batch sizes and learning rates are each preset's own, so that equal steps are not
equal work: a step of textual inversion sees one sample, one of CoRe six and one of NeTI eight.
Identity is CLIP-I and U-Net likeness, prompt fidelity CLIP-T (class); given are the mean over the concepts and the
standard deviation between them. `class alone` draws the first row's concepts at strength 0: the base without a concept.
Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONCEPTS = ["teapot", "robot", "cat", "car", "house", "bear"]
ROWS = {
    "ti": ["--method", "ti"],
    "core": ["--method", "core"],
    "core without CER": ["--method", "core", "--set", "core.lambda_emb=0"],
    "core without CAR": ["--method", "core", "--set", "core.lambda_attn=0"],
    "core, paper-literal": ["--method", "core", "--preset", "paper-literal"],
    "core, official-compat": ["--method", "core", "--preset", "official-compat"],
    "core, fast": ["--method", "core", "--preset", "fast"],
    "neti": ["--method", "neti"],
    "neti + core": ["--method", "neti", "--preset", "core"],
    "xti": ["--method", "xti"],
    "xti + core": ["--method", "xti", "--preset", "core"],
    "cones": ["--method", "cones"],
}
CLASS = "class alone"
METRICS = {"clip_i": "CLIP-I", "unet_likeness": "U-Net likeness", "clip_t_class": "CLIP-T (class)", "diversity": "diversity"}


def run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr.strip()}")


def training(args: argparse.Namespace, row: str, concept: str, steps: int, output: Path) -> list[str]:
    """The command that trains a row on a concept's photos, without samples and checkpoints."""
    return [str(args.binaries / "personalize"), "train", "--photos", str(ROOT / "assets/toybox/concepts" / concept),
            "--concept", f"<my-{concept}>", "--class", concept, *ROWS[row], "--steps", str(steps), "--seed", "1",
            "--precision", args.precision, "--save-every", "0", "--validate-every", "0", "--output", str(output), "--force"]


def arguments(parser: argparse.ArgumentParser, rows: list[str]) -> argparse.Namespace:
    """Those that every script on these rows has; the user's own base and configuration are left out of it."""
    parser.add_argument("--binaries", type=Path, default=ROOT / "target/release")
    parser.add_argument("--rows", nargs="+", default=rows, choices=list(ROWS))
    parser.add_argument("--precision", choices=["auto", "f32", "bf16", "f16"], default="auto", help="of training and drawing")
    os.environ.pop("PERSONALIZE_BASE", None)
    os.environ.pop("PERSONALIZE_CONFIG", None)
    return parser.parse_args()


def step_seconds(folder: Path) -> float:
    """The median time of a step, by a run's log."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return statistics.median(line["seconds"] for line in lines if "seconds" in line)


class Comparison:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        budget = f"{args.seconds:g}s" if args.seconds else f"{args.steps}-steps"
        self.work = args.work / f"{budget}-{args.precision}"

    def folder(self, row: str, concept: str) -> Path:
        return self.work / concept / row.replace(", ", "-").replace(" + ", "+").replace(" ", "-")

    def evaluation(self, row: str, concept: str) -> Path:
        return self.folder(row, concept) / f"evaluation-{self.args.images}"

    def steps(self, row: str) -> int:
        """Of a row's training; where its time is given, by a few steps that were timed once for all concepts."""
        if not self.args.seconds:
            return self.args.steps
        pilot = self.folder(row, "pilot")
        if not (pilot / "timed").exists():
            run(training(self.args, row, CONCEPTS[0], 12, pilot))
            (pilot / "timed").touch()
        return max(1, round(self.args.seconds / step_seconds(pilot)))

    def train(self, row: str, concept: str) -> Path:
        """The concept's file; trains it where it is not there."""
        folder = self.folder(row, concept)
        file = folder / "run" / f"my-{concept}.safetensors"
        if (folder / "trained.json").exists():
            return file

        steps = self.steps(row)
        shutil.rmtree(folder, ignore_errors=True)  # an evaluation of what was trained before
        started = time.monotonic()
        run(training(self.args, row, concept, steps, folder / "run"))
        record = {"steps": steps, "seconds": time.monotonic() - started, "step_seconds": step_seconds(folder / "run")}
        (folder / "trained.json").write_text(json.dumps(record))
        return file

    def evaluate(self, row: str, concept: str) -> dict:
        """The results; the pictures lie beside them."""
        file = self.train(self.args.rows[0] if row == CLASS else row, concept)
        given = f"{file},strength=0" if row == CLASS else str(file)
        output = self.evaluation(row, concept)
        if not (output / "results.json").exists():
            run([str(self.args.binaries / "personalize"), "evaluate", "--concept", given,
                 "--photos", str(ROOT / "assets/toybox/concepts" / concept), "--prompts", "toybox",
                 "--images", str(self.args.images), "--batch-size", str(self.args.images), "--steps", "20", "--guidance", "4",
                 "--precision", self.args.precision, "--output", str(output)])
        results = json.loads((output / "results.json").read_text())
        trained = self.folder(row, concept) / "trained.json"
        return {"row": row, "concept": concept, **(json.loads(trained.read_text()) if trained.exists() else {}),
                **{metric: results["summary"][metric]["mean"] for metric in METRICS if metric in results["summary"]}}

    def table(self, found: list[dict]) -> str:
        lines = [f"| method | concepts | steps | training, s | {' | '.join(METRICS.values())} |", "|---" * (4 + len(METRICS)) + "|"]
        for row in dict.fromkeys(entry["row"] for entry in found):
            entries = [entry for entry in found if entry["row"] == row]

            def cell(key: str, digits: int) -> str:
                values = [entry[key] for entry in entries if key in entry]
                if not values:
                    return ""
                spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 and digits else ""
                return f"{statistics.mean(values):.{digits}f}{spread}"

            cells = [row, str(len(entries)), cell("steps", 0), cell("seconds", 0), *(cell(metric, 3) for metric in METRICS)]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def board(self, concept: str, rows: list[str], prompts: list[int]) -> None:
        """The first seed of a few prompts by every row, and a photo."""
        cells = []
        for row in rows:
            output = self.evaluation(row, concept)
            results = json.loads((output / "results.json").read_text())
            for prompt in prompts:
                chosen = results["prompts"][prompt]
                words = row if prompt == prompts[0] else chosen["template"].replace("{}", concept)
                cells.append(f"{output / chosen['pictures'][0]['file']}={words}")
        run([str(self.args.binaries / "toybox"), "board", "--columns", str(len(prompts)), str(self.work / f"{concept}.png"), *cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "runs/comparison")
    parser.add_argument("--concepts", nargs="+", default=CONCEPTS, metavar="NAME")
    parser.add_argument("--steps", type=int, default=300, help="optimiser steps of each method")
    parser.add_argument("--seconds", type=float, default=0.0, help="training time of each method instead")
    parser.add_argument("--images", type=int, default=4, help="seeds for each prompt")
    parser.add_argument("--time-only", action="store_true", help="with --seconds: time each row's steps, on a quiet machine, and stop")
    args = arguments(parser, list(ROWS))

    comparison, found = Comparison(args), []
    if args.time_only:
        for row in args.rows:
            print(f"{row}: {comparison.steps(row)} steps", flush=True)
        return
    for concept in args.concepts:
        for row in [*args.rows, CLASS]:
            found.append(comparison.evaluate(row, concept))
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
        comparison.board(concept, [*args.rows, CLASS], [0, 3, 6, 9, 10])
    print(comparison.table(found))


if __name__ == "__main__":
    main()
