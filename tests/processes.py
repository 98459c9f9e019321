"""Processes of their own that need not import everything again: copies of one that has."""

import multiprocessing
import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    # torch imports the last one with the first optimizer.
    ["pyro_vae", "pyro_vae.commands.train", "matplotlib.pyplot", "sklearn.datasets", "torch._dynamo"]
)


@dataclass
class Ended:
    returncode: int | None
    stdout: str
    stderr: str


def run_script(path: Path, *arguments: str, folder: Path) -> Ended:
    """Run a Python file as ``python FILE ARGUMENTS`` does, with this folder as the current one."""
    out, err = folder.with_name(f"{folder.name}.out"), folder.with_name(f"{folder.name}.err")
    process = CONTEXT.Process(target=_run, args=(path, arguments, folder, out, err))
    process.start()
    process.join()
    return Ended(process.exitcode, out.read_text(), err.read_text())


def _run(path: Path, arguments: tuple[str, ...], folder: Path, out: Path, err: Path) -> None:
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder)
    sys.dont_write_bytecode = True
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")
