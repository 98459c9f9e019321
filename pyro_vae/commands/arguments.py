"""The options that commands on a run share."""

from pathlib import Path
from typing import Literal

from pyro_vae.commands.cli import Parser

LABEL_HELP = "Of a run with --condition: the class y, for P(X | Y = y)."


def add_run_arguments(parser: Parser, *, label: bool = True) -> None:
    """Add the options of every command on a run: the run, the class of a conditional one, the seed and the device."""
    parser.add_argument("run", help="A run folder.")
    if label:
        parser.add_argument(
            "--label", type=int | None, help="Of a run with --condition: the class y, for P(X | Y = y)."
        )
    parser.add_argument("--seed", type=int, default=0, help="Of the random numbers.")
    parser.add_argument("--device", type=str, default="auto", help='"cpu", "cuda", …; "auto" takes a GPU if there is.')


def add_data_arguments(parser: Parser) -> None:
    """Add the options of every command on examples: which, and how to read them."""
    add = parser.add_argument
    add("--split", type=Literal["test", "validation", "train"] | None, help="Which of the run's data. Default: test.")
    add("--data", type=str | None, help="Your own: a file, folder or name as for training. All of it, in its order.")
    add("--levels", type=int | None, help="The number of grey levels of your own data. Default: the run's.")
    add("--data_dir", type=str | None, help="The folder of mnist and its relatives, where --data names one of them.")
    add("--max_examples", type=int | None, help="Only the first so many. Default: all.")


def add_out_arguments(parser: Parser, name: str) -> None:
    """Add the options of every command that leaves files in a folder of its own."""
    parser.add_argument("--out", type=str | None, help=f"The folder for the results. Default: RUN/{name}.")
    parser.add_argument("--overwrite", action="store_true", help="Replace earlier results in that folder.")


def new_folder(out: str | None, run: Path, name: str, overwrite: bool) -> Path:
    """Return the folder for a command's results, RUN/NAME unless the user says otherwise; make it by ``write_file``.

    Raises:
        FileExistsError: When there is something in it already, unless ``overwrite`` is set.
    """
    folder = run / name if out is None else Path(out)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--out: {folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(
            f"--out: {folder} holds results already; replace them with --overwrite, or name another folder with --out"
        )
    return folder
