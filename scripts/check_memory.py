#!/usr/bin/env python3
"""Whether a run's memory stays flat: a table of BENCHMARKS.md.

    make build
    scripts/check_memory.py --steps 1000 --rows ti core "neti + core"

Each row trains on the teapot's photos with the built-in base, without samples and checkpoints, while its resident memory is
read twice a second (Linux, /proc). Given are its values at four steps, and the slope of a straight line through the
last three quarters of the run. Exits with 1 where that line would add more than --limit MB in a thousand steps.
Standard library only.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare_methods import arguments, training


def resident_mb(pid: int) -> float | None:
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None


def steps_done(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def follow(command: list[str], log: Path) -> list[tuple[int, float]]:
    """(step, MB) while the command runs."""
    points = []
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        while process.poll() is None:
            memory = resident_mb(process.pid)
            if memory and (step := steps_done(log)) > 0:
                points.append((step, memory))
            time.sleep(0.5)
        if process.returncode != 0:
            said.seek(0)
            sys.exit(f"{' '.join(command)}\n{said.read().strip()}")
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=20.0, help="MB that the line may add in a thousand steps")
    args = arguments(parser, ["ti", "core", "neti + core", "cones"])

    marks = [args.steps // 10, args.steps // 4, args.steps // 2, args.steps]
    print("| method | " + " | ".join(f"MB at step {mark}" for mark in marks) + " | MB in a thousand steps |")
    print("|---" * (len(marks) + 2) + "|", flush=True)
    risen = False
    for row in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "run"
            points = follow(training(args, row, "teapot", args.steps, output), output / "log.jsonl")
        if len({step for step, _ in points}) < 20:
            sys.exit(f"{row}: its steps are too quick to be followed; give more --steps")

        def near(mark: int) -> float:
            return min(points, key=lambda point: abs(point[0] - mark))[1]

        late = [(step, mb) for step, mb in points if step >= args.steps // 4]
        slope = 1000 * statistics.linear_regression(*zip(*late)).slope
        risen |= slope > args.limit
        print(f"| {row} | " + " | ".join(f"{near(mark):.0f}" for mark in marks) + f" | {slope:+.1f} |", flush=True)
    sys.exit(risen)


if __name__ == "__main__":
    main()
