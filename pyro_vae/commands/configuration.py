"""The configuration of a training: its options, from the command line and from files."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import Namespace
from pyro.infer import ELBO

from pyro_vae import data, encoders, likelihoods, objectives, priors  # noqa: F401  (classes for the parser)
from pyro_vae.base import Encoder, Likelihood, Prior
from pyro_vae.build import FILLED_IN, build
from pyro_vae.commands.arguments import TRUST
from pyro_vae.commands.cli import Parser
from pyro_vae.data import Data
from pyro_vae.machine.reading import read_yaml
from pyro_vae.machine.trust import KINDS, check_names, named_modules
from pyro_vae.runs import folder
from pyro_vae.training.options import Options

PARTS = {"prior": Prior, "encoder": Encoder, "likelihood": Likelihood, "objective": ELBO}
OBJECTIVE = "pyro.infer.Trace_ELBO"  # where none is named
# Options about the one call: they don't make the run what it is, and don't belong into its configuration.
OF_THE_CALL = ("config", "trust", "run", "overwrite", "resume", "log")


# The options of parts are a function's: those of a class alone could also be a file of that name, which would be read.
def parts(
    prior: Prior | None = None,
    encoder: Encoder | None = None,
    likelihood: Likelihood | None = None,
    objective: ELBO | None = None,
) -> None:
    """Parts: a class each, by its name or as module.Class, and its own options.

    Args:
        prior: p(z). Default: StandardNormal, or of a table FlowPrior with the flow "coupling".
        encoder: q(z|x). Default: DiagonalNormal, or of a table FullRankNormal.
        likelihood: p(x|z). Default: Bernoulli, or of a table what suits each column.
        objective: What is maximised. Default: pyro.infer.Trace_ELBO.
    """


def parser() -> Parser:
    """Return the parser; its options are the parameters of the functions and classes that take them."""
    parser = Parser(prog="python -m pyro_vae.train", description="Train a VAE, and leave a run folder.")
    parser.add_argument("--config", action="config", help="A YAML file of options, such as a run's config.yaml.")
    parser.add_argument("--trust", **TRUST)
    parser.add_argument("--run", type=str | None, help="The run folder to make. Default: runs/DATA-DATE-TIME.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the run that is in the folder.")
    parser.add_argument("--resume", type=str | None, metavar="RUN", help="Go on with a run from its last checkpoint.")
    parser.add_argument("--log", type=Literal["tensorboard"] | None, help="Log the metrics there as well.")
    parser.add_function_arguments(data.load, skip={"preferred", "missing", "as_numbers"})
    missing = "Take data with blanks (NaN, in a .csv file also empty cells and NA), and train on the rest."
    parser.add_argument("--missing", action="store_true", help=missing)
    parser.add_function_arguments(parts, skip={f"{part}.init_args.{name}" for part in PARTS for name in FILLED_IN})
    of_the_data = {"x_shape", "levels", "pixels", "missing", "num_classes", "classes", "table"}
    parser.add_function_arguments(build, skip={*PARTS, *of_the_data})
    parser.add_class_arguments(Options, instantiate=False)
    return parser


def parse(argv: list[str] | None) -> Namespace:
    """Parse the options; with ``--resume``, on top of the run's own.

    Raises:
        ValueError: When a configuration is none, or a resumed run's would change.
    """
    argv = sys.argv[1:] if argv is None else argv
    trust = named_modules(argv)
    configs, options = _apart(argv)
    config = _parse(options, configs, trust)
    if config.resume is None:
        return config
    stored_path = Path(config.resume) / folder.CONFIG
    if not stored_path.exists():
        raise FileNotFoundError(f"resume: {config.resume} is no run folder (it holds no {folder.CONFIG})")
    if config.run is not None or config.overwrite:
        raise ValueError("resume: a run goes on in its own folder; leave out --run and --overwrite")
    stored = _parse([], [str(stored_path)], trust)
    config = _parse(options, [str(stored_path), *configs], trust)
    wanted, own = config.as_dict(), stored.as_dict()
    for key in own.keys() - {*OF_THE_CALL, "device"}:
        more_epochs = key == "epochs" and own[key] is not None and (wanted[key] or 0) > own[key]
        if wanted[key] != own[key] and not (more_epochs and stored.lr_schedule == "constant"):
            raise ValueError(
                f"resume: --{key} {_shown(wanted[key])} contradicts the run's own {_shown(own[key])}"
                f"{', which the cosine schedule depends on' if more_epochs else ''}; leave it out, or start a new run"
            )
    return config


def _apart(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the configurations out of the arguments, of which all others win over them."""
    configs: list[str] = []
    options: list[str] = []
    for arg in (remaining := iter(argv)):
        name, inline, value = arg.partition("=")
        if re.fullmatch("--conf(i|ig)?", name) and (value := value if inline else next(remaining, "")):
            configs.append(value)
        else:
            options.append(arg)
    return configs, options


def _parse(options: Sequence[str], configs: Sequence[str], trust: Sequence[str]) -> Namespace:
    """Parse options on top of configurations, which name no module that isn't trusted: the parser imports them."""
    parse, base = parser(), None
    for path in configs:
        base = parse.parse_object(_read_config(path, trust), namespace=base)
    if (base is None or base.objective is None) and not any(arg.split("=")[0] == "--objective" for arg in options):
        # No default of the parser's, who would hand its options on to the class chosen instead.
        options = ["--objective", OBJECTIVE, *options]
    config = parse.parse_args(options, namespace=base)
    for name, default in (parse.get_defaults().as_dict() | {"objective": OBJECTIVE}).items():
        # Both are what the parser lets a configuration say.
        if default is not None and config[name] is None:
            raise ValueError(f"{name}: expected a value, got null; leave it out for the default")
        if type(default) is bool and type(config[name]) is not bool:
            raise ValueError(f"{name}: expected true or false, got {config[name]!r}")
    return config


def _read_config(path: str, trust: Sequence[str]) -> dict[str, Any]:
    """Read a configuration, as from a stranger: it says nothing of the one call, and names no untrusted module.

    Raises:
        ValueError: When it does, or is none.
        FileNotFoundError: When there is none.
    """
    settings = read_yaml(Path(path))
    for key in OF_THE_CALL:
        if settings.pop(key, None):  # as --print_config shows them, they are not set
            raise ValueError(f"config: {path} sets {key}, which concerns the one call; give --{key} with the command")
    named = [value for key, value in settings.items() if re.split(r"\W", str(key))[0] in KINDS]
    check_names(f"config: {path}", named, trust)
    return settings


def as_yaml(config: Namespace, dataset: Data) -> str:
    """Return the whole resolved configuration, without what concerns the one call."""
    options = plain(config) | {"pixels": dataset.pixels}
    return yaml.safe_dump({key: value for key, value in options.items() if key not in OF_THE_CALL}, sort_keys=False)


def plain(value: Any) -> Any:
    """Return the parser's namespaces, also those within lists, as dictionaries."""
    if isinstance(value, Namespace):
        return {key: plain(item) for key, item in value.as_dict().items()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    return value["class_path"] if isinstance(value, dict) else str(value)
