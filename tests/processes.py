"""Processes of their own that need not import everything again: copies of one that has."""

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    # torch imports the last one with the first optimizer.
    ["pyro_vae", "pyro_vae.commands.train", "matplotlib.pyplot", "sklearn.datasets", "torch._dynamo"]
)
PATH = list(sys.path)  # as it was before any test added to it


@dataclass
class Ended:
    returncode: int | None
    stdout: str
    stderr: str


def run_script(path: Path, *arguments: str, folder: Path) -> Ended:
    """Run a Python file as ``python FILE ARGUMENTS`` does, with this folder as the current one."""
    out, err = _outputs(folder)
    process = CONTEXT.Process(target=_run, args=(path, arguments, folder, PATH))
    process.start()
    process.join()
    return Ended(process.exitcode, out.read_text(), err.read_text())


@contextmanager
def few_imports() -> Iterator[Callable[[str, Path], Ended]]:
    """Give a function that runs code in a folder, where nothing is imported yet but torch and Pyro."""
    command = [sys.executable, "-m", __name__]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:

        def run(code: str, folder: Path) -> Ended:
            out, err = _outputs(folder)
            path = out.with_suffix(".py")
            path.write_text(code)
            print(json.dumps([str(path), str(folder)]), file=server.stdin, flush=True)
            return Ended(int(server.stdout.readline()), out.read_text(), err.read_text())

        yield run


def _serve() -> None:
    """Run each script that is named in a copy of this process, and answer with its exit status."""
    for line in sys.stdin:
        path, folder = map(Path, json.loads(line))
        child = os.fork()
        if not child:
            return _run(path, (), folder, sys.path)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def _outputs(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f"{folder.name}.out"), folder.with_name(f"{folder.name}.err")


def _run(path: Path, arguments: tuple[str, ...], folder: Path, search: list[str]) -> None:
    for number, file in enumerate(_outputs(folder), 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder)
    sys.dont_write_bytecode = True
    sys.argv = [str(path), *arguments]
    sys.path[:] = [str(path.parent), *search]
    runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    import pyro  # noqa: F401

    _serve()
