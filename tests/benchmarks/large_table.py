"""A large table, from its file to as many new rows: seconds and peak memory of each command.

python tests/benchmarks/large_table.py [--rows 1000000] [--epochs 1] [--folder FOLDER] [--threads 2]

The table has 20 columns that depend on each other: numbers with decimals, whole numbers, counts, dates, yes/no, and
categories of up to 50 names; six of them have blanks. The commands are given --data, --epochs and --num alone.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

CITIES = [f"City {number}" for number in range(1, 51)]
BLOCK = 100_000  # rows that are made at once


def rows(num: int, seed: int) -> pd.DataFrame:
    """Return some rows of the table."""
    rng = np.random.default_rng(seed)
    z, noise = rng.normal(size=(num, 3)), rng.normal(size=(num, 20))
    mixed = z @ np.random.default_rng(0).normal(size=(3, 20)) / 2 + noise
    unit = iter(mixed.T)  # a column each

    def whole(scale: float) -> np.ndarray:
        return np.round(scale * next(unit)).astype(int)

    def count(mean: float) -> np.ndarray:
        return rng.poisson(mean * np.exp(0.5 * next(unit)))

    def moments(days: float, unit_of_time: str) -> pd.DatetimeIndex:
        since = pd.to_timedelta(np.round(days * next(unit)), unit=unit_of_time)
        return pd.Timestamp("2015-06-01 12:00") + since

    def named(names: list[str]) -> np.ndarray:
        place = np.exp(-np.abs(next(unit))) * len(names)
        return np.array(names)[place.astype(int).clip(0, len(names) - 1)]

    table = pd.DataFrame(
        {
            "income": np.round(np.exp(10 + 0.5 * next(unit)), 2),
            "height": np.round(170 + 10 * next(unit), 1),
            "weight": np.round(75 + 12 * next(unit), 1),
            "rate": np.round(1 / (1 + np.exp(-next(unit))), 4),
            "signal": next(unit),
            "ratio": np.tanh(next(unit)),
            "balance": whole(5000.0),
            "temperature": whole(12.0),
            "points": whole(300.0),
            "visits": count(3.0),
            "children": count(0.8),
            "clicks": count(60.0),
            "born": moments(4000.0, "D").strftime("%Y-%m-%d"),
            "seen": moments(4e6, "s").strftime("%d.%m.%Y %H:%M:%S"),
            "city": named(CITIES),
            "colour": named(["red", "green", "blue", "grey", "black"]),
            "product": named([f"P-{number:02}" for number in range(30)]),
            "plan": named([f"plan {letter}" for letter in "abcdefghijkl"]),
            "member": np.where(next(unit) > 0, "yes", "no"),
            "smoker": np.where(next(unit) > 1, "true", "false"),
        }
    ).astype(object)
    for column in ("height", "rate", "visits", "seen", "city", "smoker"):
        table.loc[rng.random(num) < 0.05, column] = ""
    return table


def write_table(path: Path, num: int) -> None:
    """Write the table."""
    for start in range(0, num, BLOCK):
        made = rows(min(BLOCK, num - start), seed=start)
        made.to_csv(path, mode="w" if start == 0 else "a", header=start == 0, index=False)


def measured(command: list[str], folder: Path, threads: int) -> tuple[float, float]:
    """Run a command, and return its seconds and its peak memory in MB."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "pyro_vae", *command], cwd=folder, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"pyro-vae {' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="Keep the table and the run here. Default: a temporary folder.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / "table.csv", options.rows)
        size = (folder / "table.csv").stat().st_size / 1e6
        print(f"{options.rows:,} rows of 20 columns, {size:,.0f} MB", flush=True)
        commands = {
            "train": ["--data", "table.csv", "--epochs", str(options.epochs), "--run", "run", "--overwrite"],
            "sample": ["run", "--num", str(options.rows), "--overwrite"],
        }
        figures = {name: measured([name, *arguments], folder, options.threads) for name, arguments in commands.items()}
        print(f"{'':8}{'seconds':>10}{'peak memory, MB':>18}")
        for name, (seconds, peak) in figures.items():
            print(f"{name:8}{seconds:>10.1f}{peak:>18,.0f}")


if __name__ == "__main__":
    main()
