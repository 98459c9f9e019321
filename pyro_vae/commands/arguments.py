"""The options that commands on a run share, and what they name: the run, its model, a folder, examples, a proposal."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor

from pyro_vae.build import make_part
from pyro_vae.commands.cli import Parser, command
from pyro_vae.commands.outputs import column_names
from pyro_vae.commands.progress import progress_bar
from pyro_vae.evidence import Proposal
from pyro_vae.machine.devices import check_seed, resolve_device
from pyro_vae.machine.files import named, subfolder
from pyro_vae.machine.lock import taken
from pyro_vae.program import Data, Program
from pyro_vae.runs.checkpoint import identity, load
from pyro_vae.runs.folder import check_results
from pyro_vae.runs.opening import Examples, load_run, read_examples
from pyro_vae.vae import VAE

LABEL_HELP = "Of a run with --condition: the class y, as the data call it, for P(X | Y = y)."
TRUST: dict[str, Any] = {
    "action": "append",
    "default": [],
    "metavar": "MODULE",
    "help": "Import this module, if the run or the configuration names a part in it; may be repeated.",
}
OF_A_FILE = ("levels", "data_dir", "max_examples")


def run_parser(
    name: str, description: str, *, label: bool = True, examples: bool = True, folder: bool = True
) -> Parser:
    """Return the parser of a command on a run, with the options that many of them share.

    Args:
        name: The command's.
        description: What it does.
        label: It can work on one class of a conditional run.
        examples: It reads some; see :func:`read_chosen`.
        folder: It leaves its files in one of its own.
    """
    parser = Parser(prog=f"pyro-vae {name}", description=description)
    add = parser.add_argument
    add("run", help="A run folder.")
    if label:
        add("--label", type=str | None, help=LABEL_HELP)
    add("--trust", **TRUST)
    add("--seed", type=int, default=0, help="Of the random numbers.")
    add("--device", type=str, default="auto", help='"cpu", "cuda", …; "auto" takes a GPU if there is.')
    if folder:
        add("--out", type=str | None, help=f"The folder for the results. Default: RUN/{name}.")
    add("--overwrite", action="store_true", help="Replace earlier results.")
    if examples:
        parser.add_options(read_examples, "split", "data", *OF_A_FILE)
    return parser


# As `parts` of the configuration: no file is read in its place.
def proposals(proposal: Proposal | None = None) -> None:
    """Name the proposal, and its options.

    Args:
        proposal: What is sampled from: Widened, Defensive, Refined, Laplace or module.Class. Default: the encoder's
            q(z|x).
    """


def add_proposal_argument(parser: Parser) -> None:
    """Add the option that names a proposal."""
    parser.add_function_arguments(proposals)


def options_of(function: Callable[..., Any], args: Namespace) -> dict[str, Any]:
    """Return the options that a function takes, by keyword alone."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: args[p.name] for p in parameters if p.kind == p.KEYWORD_ONLY and p.name in args}


def refuse_unused(kind: str, functions: Mapping[str, Callable[..., Any]], given: Namespace, chosen: str) -> None:
    """Refuse what was ``given`` without effect: options of other functions than the one that ``--kind`` has chosen.

    Raises:
        ValueError: Naming the option.
    """
    takes = {name: options_of(function, given).keys() for name, function in functions.items()}
    for option in sorted(set().union(*takes.values()) - takes[chosen]):
        owners = " or ".join(name for name, options in takes.items() if option in options)
        raise ValueError(f"--{option} belongs to --{kind} {owners}, not {chosen}; leave it out")


@dataclass
class Opened:
    """What a command on a run begins with, and what it reads when it is asked for.

    Attributes:
        args: Its options.
        run: The run folder.
        vae: The model, on the device.
        device: Where to compute.
        folder: The one for the results.
        model: Which one it is; see :func:`pyro_vae.runs.checkpoint.identity`.
    """

    args: Namespace
    run: Path
    vae: VAE
    device: torch.device
    folder: Path
    model: tuple[int, ...]

    @cached_property
    def examples(self) -> Examples:
        """The examples that the options name."""
        return read_chosen(self.run, self.vae, self.args)

    @cached_property
    def names(self) -> list[str] | None:
        """The names of a table's columns; None of images."""
        return column_names(self.run, self.vae)

    def x(self) -> Tensor:
        """Return the examples themselves, on the device."""
        return self.examples.x.to(self.device)


def on_run(
    name: str,
    parser: Callable[[], Parser],
    *,
    whole: bool = False,
    check: Callable[[Namespace, Namespace], None] | None = None,
) -> Callable[[Callable[[Opened], None]], Callable[..., None]]:
    """Make a command out of a function of a run: its options are parsed, and the run is opened for it.

    Args:
        name: The command's.
        parser: Makes its parser.
        whole: Without ``--label``, a conditional run is opened as it is, not as P(X).
        check: Refuses options, before anything is read: all of them, and those that were given.
    """

    def decorate(work: Callable[[Opened], None]) -> Callable[..., None]:
        @command
        @functools.wraps(work)
        def main(argv: list[str] | None = None) -> None:
            args = parser().parse_args(argv)
            if check is not None:
                check(args, parser().parse_args(argv, defaults=False))
            opened = open_run(args, name, whole=whole)
            busy = f"--out: another process writes into {opened.folder}; wait for its end, or name another folder"
            with taken(opened.folder, busy):
                check_results(opened.folder, name, args.overwrite)  # again, since by now nobody else changes it
                work(opened)
                if identity(opened.run) != opened.model:
                    print(
                        f"warning: {opened.run} was trained again; these are results of the model before",
                        file=sys.stderr,
                    )

        return main

    return decorate


def open_run(args: Namespace, name: str, *, whole: bool = False) -> Opened:
    """Open the run of a command, and choose the folder for its results.

    Raises:
        ValueError: Naming the option that does not fit.
        FileExistsError: When there are earlier results, unless ``--overwrite`` is given.
    """
    check_seed(args.seed)
    run, device = named(args.run), resolve_device(args.device)
    label = args.get("label")
    model = identity(run)
    vae = load(run, trust=args.trust) if whole and label is None else load_run(run, label, trust=args.trust)
    folder = subfolder(run, name) if args.out is None else named(args.out)
    check_results(folder, name, args.overwrite)
    return Opened(args, run, vae.to(device, torch.float32), device, folder, model)


def read_chosen(run: Path, vae: VAE, args: Namespace) -> Examples:
    """Read the examples that the options name; see :func:`pyro_vae.runs.opening.read_examples`."""
    return read_examples(run, vae, **options_of(read_examples, args))


def proposal_name(args: Namespace) -> str:
    """Return the name of the class that was chosen as the proposal."""
    return "encoder" if args.proposal is None else args.proposal.class_path.rpartition(".")[2]


def proposal_options(args: Namespace) -> dict[str, Any]:
    """Return the options of the proposal that was chosen."""
    return {} if args.proposal is None else args.proposal.as_dict().get("init_args", {})


def propose(vae: VAE, x: Data, args: Namespace) -> Program:
    """Return the proposal that the options name, fitted to the data where it is one for each of them."""
    if args.proposal is None:
        return vae.guide
    with progress_bar("fitting q") as progress:
        # Another seed than the estimate's: weighed by the noise it was fitted to, q would look better than it is.
        proposal = make_part(args.proposal.as_dict(), Proposal, {})
        return proposal(vae.model, vae.guide, x, seed=args.seed + 1, progress=progress)
