"""The run folder: the names in it, whose it is, and what in it is ours to replace."""

import contextlib
import itertools
import re
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pyro_vae.data import Data
from pyro_vae.data.source import difference
from pyro_vae.machine.lock import taken
from pyro_vae.machine.reading import read_json, read_yaml

CONFIG, METRICS, SUMMARY, PAGE = "config.yaml", "metrics.csv", "summary.json", "report.html"
MODEL, STATE, LOG = "model.safetensors", "checkpoint/state.safetensors", "tensorboard"
KEPT = "kept_data.npz"
PICTURES = ("samples.png", "reconstructions.png", "curves.png")
# What a command leaves in a folder of its own: the file by which it is known, and all others.
RESULTS = {
    "sample": (r"samples\.npz", r"samples\.(csv|tsv|parquet|feather|png)"),
    "reconstruct": (r"reconstructions\.npz", r"reconstructions\.(csv|tsv|parquet|feather|png)|columns\.csv"),
    "encode": (r"latents\.npz", r"latents\.(csv|png)|dimensions\.csv"),
    "interpolate": (r"interpolation\.npz", r"interpolation\.(csv|tsv|parquet|feather|png)"),
    "manifold": (r"(manifold|traversals)\.npz", r"(manifold|traversals)\.(csv|tsv|parquet|feather|png)"),
    "impute": (
        r"completed\.npz",
        r"completed\.png|(completed-\d+|mean|diagnostics|columns)\.(csv|tsv|parquet|feather)",
    ),
    "augment": (r"augmented\.npz", r"augmented\.(csv|tsv|parquet|feather|png)"),
    "score": (r"scores\.json", r"scores\.(csv|png)|columns\.csv"),
    "classify": (r"classes\.json", r"classes\.csv"),
    "compare-table": (r"comparison\.json", r"comparison\.html|(columns|pairs)\.csv"),
}
EVALUATION = ("csv", "nc", "png", "json")
MARK = b'<meta name="generator" content="pyro_vae">'  # of our pages
OPTIONS = {"data", "pixels", "prior", "encoder", "likelihood", "objective", "epochs", "seed"}  # of every run


def contents(folder: Path) -> list[str]:
    """Return the names in a folder, if there is one, but for hidden ones, such as of what a killed process left."""
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run: its configuration, alone or with what else a training leaves."""
    try:
        if not read_yaml(folder / CONFIG).keys() >= OPTIONS:
            return False
    except (OSError, ValueError):
        return False
    others = set(contents(folder)) - {CONFIG}
    return not others or bool(others & {METRICS, SUMMARY, MODEL, Path(STATE).parts[0], LOG})


def check_new(run: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something already, before anything is done.

    Raises:
        FileExistsError: When it isn't empty, unless it is a run folder and ``overwrite`` is set.
    """
    if run.exists() and not run.is_dir():
        raise FileExistsError(f"run: {run} is a file; name a folder")
    if not contents(run):
        return
    if not is_run(run):
        raise FileExistsError(f"run: {run} exists and is no run folder; name another")
    if not overwrite:
        raise FileExistsError(
            f"run: {run} holds a run already; name another folder, go on with --resume {run}, or replace it with "
            "--overwrite"
        )


def check_goes_on(run: Path) -> None:
    """Refuse to go on with a run that was trained, but whose checkpoint is gone: it would begin anew.

    Raises:
        FileNotFoundError: Naming the way out.
    """
    left = [name for name in (MODEL, SUMMARY, METRICS) if (run / name).exists()]
    if left and not (run / STATE).exists():
        config = shlex.quote(str(run / CONFIG))
        raise FileNotFoundError(
            f"resume: {run} holds {left[0]}, but no {STATE} to go on from; train anew with --config {config}, and "
            "--run NEW or --overwrite"
        )


@contextlib.contextmanager
def created(run: Path, overwrite: bool) -> Iterator[Path]:
    """Have a folder for a new run, in the place of one that it holds if ``overwrite`` is set."""
    check_new(run, overwrite)
    with taken(run, _in_use(run)):
        check_new(run, overwrite)  # again, since by now nobody else changes it
        yield run


@contextlib.contextmanager
def created_beside(run: Path) -> Iterator[Path]:
    """Have a new folder of this name, or with a number behind it where that is taken."""
    with contextlib.ExitStack() as stack:
        for number in itertools.count(1):
            own = run if number == 1 else run.with_name(f"{run.name}-{number}")
            with contextlib.suppress(FileExistsError):
                stack.enter_context(taken(own, _in_use(own), new=True))
                break
        yield own


@contextlib.contextmanager
def resumed(run: Path) -> Iterator[Path]:
    """Have the folder of a run that can be gone on with."""
    with taken(run, _in_use(run)):
        check_goes_on(run)
        yield run


def _in_use(run: Path) -> str:
    return f"run: {run} is being trained by another process; wait for its end, or name another folder"


def check_results(folder: Path, command: str, overwrite: bool) -> None:
    """Refuse a folder for results that holds something already, unless these are earlier results to be replaced.

    Raises:
        FileExistsError: When it isn't empty, unless it holds results of this command and ``overwrite`` is set.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--out: {folder} is a file; name a folder")
    if not contents(folder):
        return
    if is_run(folder) or not results(folder, command):
        what = "a run" if is_run(folder) else f"other files, and no results of {command}"
        raise FileExistsError(f"--out: {folder} holds {what}; name another folder")
    if not overwrite:
        raise FileExistsError(
            f"--out: {folder} holds results already; replace them with --overwrite, or name another folder with --out"
        )


def results(folder: Path, command: str) -> list[Path]:
    """Return the files of a command's results in a folder, none where the one is missing by which they are known.

    That one is the last: if a process that removes them is killed, the others are still known.
    """
    main, others = RESULTS[command]
    names = contents(folder)
    known = [folder / name for name in names if re.fullmatch(main, name)]
    if not any(_is_archive(path) if path.suffix == ".npz" else _is_summary(path) for path in known):
        return []
    return [*(folder / name for name in names if re.fullmatch(others, name)), *known]


def is_result(name: str) -> bool:
    """Whether a file of this name is one that a command leaves."""
    patterns = [pattern for pair in RESULTS.values() for pattern in pair]
    return bool(re.fullmatch("|".join([*patterns, rf"evaluation(-.+)?\.({'|'.join(EVALUATION)})"]), name))


def check_evaluation(run: Path, name: str, overwrite: bool) -> None:
    """Refuse to replace an evaluation unless ``overwrite`` is set, and ever to replace files that belong to none.

    Raises:
        FileExistsError: Naming the file.
    """
    there = [path for kind in EVALUATION if (path := run / f"{name}.{kind}").exists()]
    if there and not _is_summary(run / f"{name}.json"):
        raise FileExistsError(f"{there[0]} exists, and is of no evaluation; choose another --name")
    if there and not overwrite:
        raise FileExistsError(f"{there[0]} exists; replace it with --overwrite, or keep both with another --name")


def evaluations(run: Path) -> list[Path]:
    """Return the files of all evaluations of a run, of each the summary last."""
    found = [path.stem for path in run.glob("evaluation*.json") if is_result(path.name) and _is_summary(path)]
    return [path for name in found for kind in EVALUATION if (path := run / f"{name}.{kind}").exists()]


def _is_summary(path: Path) -> bool:
    """Whether a file is a summary that a command has written."""
    try:
        versions = read_json(path).get("versions")
    except (OSError, ValueError):
        return False
    return isinstance(versions, dict) and "pyro-vae" in versions


def _is_archive(path: Path) -> bool:
    """Whether a file is a .npz file, more than by its name; a link, of which nothing but itself is lost, may be one."""
    return path.is_symlink() or (path.is_file() and zipfile.is_zipfile(path))


def is_page(path: Path) -> bool:
    """Whether a file is a page that ``report`` has written."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK in file.read(2**10)


def made_of_model(run: Path) -> list[Path]:
    """Return what the end of a training leaves, and commands make of it: it would be wrong about another model."""
    own = [path for command in RESULTS for path in results(run / command, command) if not path.parent.is_symlink()]
    page = [run / PAGE] if is_page(run / PAGE) else []
    return [*(run / name for name in (SUMMARY, MODEL, KEPT, *PICTURES)), *page, *evaluations(run), *own]


def check_same_data(run: Path, dataset: Data) -> None:
    """Refuse data that changed since the run was trained and tested on them: figures would be of others.

    Args:
        run: The run folder.
        dataset: The data.

    Raises:
        ValueError: Naming the data.
    """
    if not (run / SUMMARY).exists():
        return
    known = read_json(run / SUMMARY, data_fingerprint=(str, dict)).get("data_fingerprint")
    if known is not None and (part := difference(known, dataset.fingerprints())):
        raise ValueError(f"data: {dataset.name} has changed ({part}) since {run} was trained on it; train again")
