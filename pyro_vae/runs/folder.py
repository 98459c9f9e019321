"""The run folder: the names in it, and whether it is one."""

from pathlib import Path

from pyro_vae.data import Data
from pyro_vae.data.source import fingerprint
from pyro_vae.machine.reading import read_json

CONFIG, METRICS, SUMMARY = "config.yaml", "metrics.csv", "summary.json"
PICTURES = ("samples.png", "reconstructions.png", "curves.png")


def check_new(run: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something already, before anything is done.

    Raises:
        FileExistsError: When it isn't empty, unless it is a run folder and ``overwrite`` is set.
    """
    if run.exists() and not run.is_dir():
        raise FileExistsError(f"run: {run} is a file; name a folder")
    if not run.is_dir() or not any(run.iterdir()):
        return
    if not (run / CONFIG).exists():
        raise FileExistsError(f"run: {run} exists and is no run folder; name another")
    if not overwrite:
        raise FileExistsError(
            f"run: {run} holds a run already; name another folder, go on with --resume {run}, or replace it with "
            "--overwrite"
        )


def check_same_data(run: Path, dataset: Data) -> None:
    """Refuse data that changed since the run was trained on them: its splits would be others.

    Raises:
        ValueError: Naming the data.
    """
    if not (run / SUMMARY).exists():
        return
    known = read_json(run / SUMMARY).get("data_fingerprint")
    if known is not None and known != fingerprint(dataset.train):
        raise ValueError(f"data: {dataset.name} has changed since {run} was trained on it; train again")
