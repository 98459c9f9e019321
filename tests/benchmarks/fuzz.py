"""Broken files and senseless options: a command ends with one line, and a status that says whose fault it is.

``python tests/benchmarks/fuzz.py`` spoils each kind of file that is read, in 2,000 cases, and makes up 500 lists of
options. Each case is a process of its own, a copy of this one, with 60 s and 2 GB more memory than this one has. It
prints how many ended in which way, and for each bad end its number; ``--case NUMBER`` runs that case alone, with all
that it prints. The whole takes about an hour of one core; ``--first`` and ``--cases`` run a part of it. Linux only.
"""

import argparse
import contextlib
import gzip
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image
from spoiling import NASTY, spoil_any, spoil_array, spoil_csv, spoil_tensors, spoil_text

from pyro_vae.__main__ import COMMANDS, main, module_of
from pyro_vae.commands import configuration

SECONDS, MEMORY = 60, 2 * 2**30
MUTATIONS, OPTION_LISTS = 2000, 500
GOOD = ("done", "refused", "in vain", "out of memory")
FEW = ["--max_examples", "5"]
TINY = ["--epochs", "1", "--hidden_dims", "[4]", "--latent_dim", "2", "--batch_size", "500"]
SHORT = {
    "evaluate": ["--num_samples", "3", *FEW],
    "score": ["--num_samples", "3", *FEW],
    "classify": ["--num_samples", "3", *FEW],
    "impute": ["--hide", "0.5", "--num_samples", "5", "--num_starts", "1", "--steps", "2", "--max_examples", "2"],
    "interpolate": ["--between", "0", "1", "--num", "3"],
    "manifold": ["--num", "3"],
    "sample": ["--num", "3"],
    "augment": ["--times", "1", *FEW],
    "reconstruct": FEW,
    "encode": FEW,
    "report": ["--no_check"],
}


@dataclass
class Case:
    """What to run: a command in a folder of its own, after something in that was spoiled."""

    arguments: list[str]
    spoil: Callable[[random.Random], str] = lambda rng: "options"


def prepare(home: Path) -> None:
    """Make the data and the runs that are spoiled later."""
    os.chdir(home)
    rng = np.random.default_rng(0)
    np.save("own.npy", rng.integers(0, 17, (30, 8, 8)))
    np.savez("own.npz", x=rng.integers(0, 17, (30, 8, 8)), y=rng.integers(0, 3, 30))
    np.savetxt("table.csv", rng.normal(size=(60, 3)), delimiter=",", header="a,b,c", comments="", fmt="%.4g")
    np.savetxt("anomalies.csv", rng.integers(0, 2, (5, 1)), fmt="%d")
    np.save("mask.npy", rng.integers(0, 2, (8, 8)))
    Path("pictures").mkdir()
    for number, image in enumerate(rng.integers(0, 256, (20, 8, 8), np.uint8)):
        Image.fromarray(image).save(f"pictures/{number}.png")
    raw = Path("known", "MNIST", "raw")
    raw.mkdir(parents=True)
    for part, count in (("train", 60), ("t10k", 20)):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            head = struct.pack(f">I{len(shape)}I", 0x0800 + len(shape), *shape)
            body = rng.integers(0, 10, shape, np.uint8).tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(head + body)
            (raw / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + body))
    main(["train", *TINY, "--run", "plain"])
    main(["train", *TINY, "--run", "labelled", "--condition", "label"])
    table = ["--data", "table.csv", "--likelihood", "Gaussian", "--prior", "GaussianMixture", "--prior.components", "3"]
    main(["train", "--epochs", "2", "--hidden_dims", "[4]", "--latent_dim", "2", *table, "--run", "table"])
    for run in ("plain", "table"):
        main(["evaluate", run, "--num_samples", "30", *FEW])
    np.savetxt("other.csv", rng.normal(size=(60, 3)), delimiter=",", header="a,b,c", comments="", fmt="%.4g")


def file_case(rng: random.Random) -> Case:
    """Choose a file, and a command that reads it."""
    run = rng.choice(("plain", "plain", "labelled", "table"))
    own = "table.csv" if run == "table" else "own.npy"

    def on_run(name: str, *more: str) -> list[str]:
        data = ["--data", own] if name == "augment" and "--data" not in more else []
        label = ["--label", "3"] if run == "labelled" and name != "classify" and rng.random() < 0.8 else []
        return [name, run, *label, *SHORT.get(name, []), *data, *more, *([] if name == "check" else ["--overwrite"])]

    others = ("train", "parts", "check", "compare-table")
    commands = [name for name in COMMANDS if name not in others] + ["check"] * (rng.random() < 0.3)
    resume = ["train", "--resume", run, "--epochs", "3"]
    again = ["train", "--config", f"{run}/config.yaml", "--run", "again", "--epochs", "1"]
    target = rng.choice(("config",) * 4 + ("model",) * 4 + ("state",) * 3 + ("facts",) * 3 + ("data",) * 5)
    if target == "config":
        arguments = rng.choice((again, again, resume, on_run(rng.choice(commands))))
        return Case(arguments, lambda rng: spoil_text(Path(run, "config.yaml"), rng))
    if target == "model":
        return Case(on_run(rng.choice(commands)), lambda rng: spoil_tensors(Path(run, "model.safetensors"), rng))
    if target == "state":
        return Case(resume, lambda rng: spoil_tensors(Path(run, "checkpoint", "state.safetensors"), rng))
    if target == "facts":
        run = rng.choice(("plain", "table"))
        name = rng.choice(("summary.json", "metrics.csv", "evaluation.json", "evaluation.csv"))
        spoil = spoil_text if name.endswith("json") else spoil_csv
        arguments = rng.choice(
            (
                on_run("report"),
                on_run("report"),
                on_run("evaluate", "--data", own),
                ["train", "--resume", run, "--epochs", "1"],
            )
        )
        return Case(arguments, lambda rng: spoil(Path(run, name), rng))
    return data_case(rng, on_run)


def data_case(rng: random.Random, on_run: Callable[..., list[str]]) -> Case:
    """Choose a file of data, and a command that reads it."""
    name, spoil = rng.choice(
        (
            ("own.npy", spoil_array),
            ("own.npz", spoil_array),
            ("table.csv", spoil_csv),
            ("pictures", spoil_any),
            ("known", spoil_any),
        )
    )
    likelihood = rng.choice(("Bernoulli", "Gaussian", "Categorical", "Poisson", "BetaBinomial"))
    how = rng.choice(([], ["--likelihood", likelihood], ["--missing"], ["--condition", "label"], ["--levels", "256"]))
    known = ["--data", "mnist", "--data_dir", "known", "--validation", "5"]
    data = known if name == "known" else ["--data", name]
    choices = [["train", *TINY[:-2], *data, *how, "--run", "again"]] * 3
    if name != "known":
        choices += [
            on_run(command, *data) for command in ("evaluate", "score", "impute", "encode", "augment", "classify")
        ]
    if name in ("own.npy", "table.csv"):
        choices += [
            ["score", "plain", *SHORT["score"], "--data", "own.npy", "--anomalies", name],
            ["impute", "plain", *SHORT["impute"][2:], "--mask", name],
            ["impute", "plain", *SHORT["impute"][2:], "--data", "own.npy", "--mask", "mask.npy", "--truth", name],
            ["sample", "plain", "--near", f"{name}:{rng.choice(('0', '3', '999', '-1', 'x'))}", "--num", "2"],
        ]
    if name == "table.csv":
        choices += [["compare-table", *rng.sample((name, "other.csv"), 2), "--overwrite"]] * 3
    return Case(rng.choice(choices), lambda rng: spoil(Path(name), rng))


# Values of options, some of which make sense.
FILES = ("own.npy", "table.csv", "own.npz", "pictures", "plain", "plain/config.yaml", "privateuseone")
PLAIN = (
    0,
    1,
    2,
    3,
    5,
    20,
    -1,
    0.1,
    0.5,
    1.5,
    True,
    "test",
    "train",
    "label",
    "Refined",
    "StudentT",
    "out",
    "x",
    [4],
    "own.npy",
)

# Asked for much of these, a command works for long, as it should.
LONG = re.compile(
    "epochs|steps|num_temperatures|num_leapfrog|num_chains|num_starts|times|patience|target|max_num|num_samples"
)


def options_case(rng: random.Random) -> Case:
    """Make up options of a command; some of them exist."""
    command = rng.choice([*COMMANDS])
    module = module_of(command)
    known = ["--help", "--json", "--label", "--trust", "--nope", "-x", "--", "--device", "--seed"]
    source = configuration if command == "train" else module
    if hasattr(source, "parser"):
        known += [
            option for action in source.parser()._actions for option in action.option_strings if "help" not in option
        ]
    known += [
        "--prior.df",
        "--prior.components",
        "--likelihood.groups",
        "--objective.num_particles",
        "--proposal.steps",
    ]
    senseless = ("own.npy", "nope", "", ".", "known", "\ud800", "~nouser")
    run = rng.choice(("plain", "labelled", "table")) if rng.random() < 0.9 else rng.choice(senseless)
    overwrite = [] if command in ("train", "parts", "check") else ["--overwrite"]
    arguments = (
        [command, *TINY] if command == "train" else [command] if command == "parts" else [command, run, *overwrite]
    )
    arguments += SHORT.get(command, []) if rng.random() < 0.8 else []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        option = rng.choice(known)
        value = rng.choice((*NASTY, *FILES) if rng.random() < 0.5 else PLAIN)
        text = value if isinstance(value, str) else json.dumps(value)
        if LONG.search(option) and re.fullmatch(r"[\d.e+]{3,}|Infinity|true", text):
            text = "3"
        text = text.replace("\x00", "\udc80")  # no argument can hold the one
        one, joined = [option, text], [f"{option}={text}"]
        arguments += rng.choice((one, one, one, one, joined, joined, [option], [option, text, text], [text]))
    return Case(arguments)


def outcome(status: int, err: str, seconds: float, peak: int) -> str:
    """Say how a process ended."""
    lines = [line for line in err.splitlines() if not line.startswith(("warning:", "usage:"))]
    if seconds > SECONDS:
        return "hang"
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    code = os.waitstatus_to_exitcode(status)
    if "Traceback" in err:
        return "traceback"
    if code in (1, 2) and (len(lines) != 1 or not lines[0].startswith("error: ")):
        return f"not one line, status {code}"
    if peak > MEMORY or "out of memory" in err:
        return "out of memory" if code == 1 else "much memory"
    return {0: "done", 1: "in vain", 2: "refused", 70: "a fault (70)"}.get(code, f"status {code}")


def run_case(case: Case, rng: random.Random, home: Path, shown: bool) -> tuple[str, str, str]:
    """Run a case in a copy of this process; return how it ended, what was spoiled, and its last words."""
    folder = Path(tempfile.mkdtemp(prefix="case-", dir=home.parent))
    shutil.copytree(home, folder, dirs_exist_ok=True)
    os.chdir(folder)
    said = case.spoil(rng)
    words = folder / "words.txt"
    start, before = time.monotonic(), resident()
    pid = os.fork()
    if pid == 0:
        _child(case.arguments, words, shown)
    status = 0
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() - start > SECONDS:
            os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            break
        time.sleep(0.005)
    err = words.read_text(errors="replace") if words.exists() else ""
    ended = outcome(status, err, time.monotonic() - start, usage.ru_maxrss * 1024 - before)
    os.chdir(home)
    shutil.rmtree(folder, ignore_errors=True)
    if shown:
        print(err)
    return ended, said, err.strip().splitlines()[-1] if err.strip() else ""


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _child(arguments: list[str], words: Path, shown: bool) -> None:
    """Run a command, and end; nothing of it returns."""
    code = 99
    try:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        os.environ["TMPDIR"] = tempfile.tempdir = str(words.parent)  # where the tracebacks of faults go
        out = os.open(os.devnull, os.O_WRONLY)
        err = os.open(words, os.O_WRONLY | os.O_CREAT)
        os.dup2(2 if shown else out, 1)
        os.dup2(err, 2)
        try:
            main(arguments)
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except BaseException:
            traceback.print_exc()
            code = 98
        if code == 70:
            for path in words.parent.glob("pyro-vae-*.txt"):
                print(path.read_text(), file=sys.stderr) if shown else None
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--first", type=int, default=0)
    asked.add_argument("--cases", type=int, default=MUTATIONS + OPTION_LISTS)
    asked.add_argument("--case", type=int, help="This one alone, with what it prints.")
    asked.add_argument("--all", action="store_true", help="Print how each case ended, not only the bad ones.")
    args = asked.parse_args()
    numbers = range(args.first, args.first + args.cases) if args.case is None else [args.case]
    for module in ("matplotlib.pyplot", "sklearn.datasets"):
        import_module(module)  # once, before the forks
    for name in COMMANDS:
        module_of(name)
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        home = Path(scratch, "home")
        home.mkdir()
        if (pid := os.fork()) == 0:  # in a copy: what trained here has threads, and would not survive a fork
            with contextlib.redirect_stdout(io.StringIO()):
                prepare(home)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        os.chdir(home)
        for number in numbers:
            rng = random.Random(f"{args.seed}-{number}")
            case = file_case(rng) if number < MUTATIONS else options_case(rng)
            ended, said, last = run_case(case, rng, home, shown=args.case is not None)
            counts["files" if number < MUTATIONS else "options", ended] += 1
            if ended not in GOOD or args.all or args.case is not None:
                print(
                    f"case {number}: {ended}: {' '.join(map(repr, case.arguments))}; {said!r}\n    {last[:300]!r}",
                    flush=True,
                )
        os.chdir("/")
    for (kind, ended), count in sorted(counts.items()):
        print(f"{kind:<8} {ended:<30} {count}")
    sys.exit(any(ended not in GOOD for _, ended in counts))
