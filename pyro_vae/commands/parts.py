"""List the parts that a VAE can be made of, with their options: ``pyro-vae parts``."""

import importlib
import inspect
import json
import re
import types
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pyro.infer
import torch
from docstring_parser import Docstring, parse
from pyro.infer import ELBO, TraceMeanField_ELBO
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pyro_vae import encoders, evidence, likelihoods, objectives, priors
from pyro_vae.base import Encoder, Likelihood, Prior
from pyro_vae.build import FILLED_IN, build
from pyro_vae.commands.cli import Parser, command
from pyro_vae.evidence import Proposal
from pyro_vae.objectives import check_closed_forms

# The kinds of parts, each with its class and the package's own module of them.
KINDS: dict[str, tuple[type, types.ModuleType]] = {
    "prior": (Prior, priors),
    "encoder": (Encoder, encoders),
    "likelihood": (Likelihood, likelihoods),
    "objective": (ELBO, objectives),
    "proposal": (Proposal, evidence),
}
TITLES = {
    "prior": "priors p(z)",
    "encoder": "encoders q(z|x)",
    "likelihood": "likelihoods p(x|z)",
    "proposal": "proposals of evaluate, score",
}

# In our words, since Pyro's begin with how they are computed. Its other ELBO classes are for other programs than
# VAEs, such as those with discrete latent sites.
PYRO_OBJECTIVES = {
    "Trace_ELBO": "Pyro's evidence lower bound, with its KL from samples of z.",
    "TraceMeanField_ELBO": "Pyro's evidence lower bound, with its KL in closed form; refused where there is none.",
    "RenyiELBO": "Pyro's Rényi bound of order α; with α = 0 the importance-weighted bound.",
}
# What Pyro's ELBO classes accept besides, and what changes nothing in a VAE.
PYRO_LEFTOVERS = {
    "max_iarange_nesting",
    "strict_enumeration_warning",
    "ignore_jit_warnings",
    "jit_options",
    "retain_graph",
    "tail_adaptive_beta",
}
PYRO_HELP = {
    "num_particles": "Samples of z for each datum.",
    "vectorize_particles": "Draw them all at once, instead of one after the other.",
    "alpha": "Order of the divergence, other than 1.",
}
GREEK = {"alpha": "α", "beta": "β", "lambda": "λ", "mu": "μ", "nu": "ν", "sigma": "σ"}
WIDTH = 100

# For each prior and encoder whether their KL has a closed form; None where a part can't be built without options.
KLTable = dict[str, dict[str, bool | None]]


@dataclass(frozen=True)
class Option:
    """A parameter of a part's constructor that its user may set."""

    name: str
    type: str
    required: bool
    default: Any
    help: str

    def __str__(self) -> str:
        value = "required" if self.required else f"default {self.default}"
        return f"{self.name}: {self.type}, {value}. {self.help}".rstrip()


@dataclass(frozen=True)
class Part:
    """A class that can be named on the command line."""

    kind: str
    name: str
    class_path: str
    summary: str
    options: list[Option]


def find_parts(kind: str, module: types.ModuleType) -> list[type]:
    """Return the parts of one kind that can be named through ``module`` and come from its package.

    Args:
        kind: "prior", "encoder", "likelihood", "objective" or "proposal".
        module: Where to look; not in the modules below it.

    Example:
        >>> [part.__name__ for part in find_parts("encoder", encoders)]
        ['DiagonalNormal', 'FlowPosterior', 'FullRankNormal']
    """
    base, _ = KINDS[kind]
    package = module.__name__.partition(".")[0]
    found = {
        value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and not inspect.isabstract(value)
        if not name.startswith("_") and value.__module__.partition(".")[0] == package
    }
    return sorted(found, key=lambda part: part.__name__)


def our_parts(kind: str) -> list[type]:
    """Return the parts of one kind that come with this package, and for objectives with Pyro.

    Example:
        >>> [part.__name__ for part in our_parts("objective")][-3:]
        ['Trace_ELBO', 'TraceMeanField_ELBO', 'RenyiELBO']
    """
    pyros = [getattr(pyro.infer, name) for name in PYRO_OBJECTIVES] if kind == "objective" else []
    return find_parts(kind, KINDS[kind][1]) + pyros


def describe(kind: str, part: type, module: types.ModuleType | None = None) -> Part:
    """Describe a part by its docstring and the parameters of its constructor.

    Args:
        kind: Its kind.
        part: The class.
        module: The module that it is named through. Default: its own.

    Example:
        >>> print(*describe("prior", priors.StudentT).options)
        df: float, default 5.0. Degrees of freedom ν > 0; ...
    """
    doc = parse(inspect.getdoc(part) or "")
    module_name = module.__name__ if module else part.__module__
    of_pyro = part.__module__.startswith("pyro.")
    return Part(
        kind=kind,
        name=part.__name__,
        class_path=f"{module_name}.{part.__name__}",
        summary=PYRO_OBJECTIVES[part.__name__] if of_pyro else _plain(doc.short_description or ""),
        options=_options(part, doc, of_pyro),
    )


def closed_form_kl(prior_paths: Sequence[str], encoder_paths: Sequence[str]) -> KLTable:
    """Tell for which pairs KL[q(z|x) || p(z)] has a closed form, by building each pair small.

    Args:
        prior_paths: Priors by name.
        encoder_paths: Encoders by name.

    Returns:
        For each prior and encoder whether torch knows the form; None where a part can't be built without options.

    Example:
        >>> closed_form_kl(["StandardNormal", "StudentT"], ["DiagonalNormal"])
        {'StandardNormal': {'DiagonalNormal': True}, 'StudentT': {'DiagonalNormal': False}}
    """
    return {prior: {encoder: _has_closed_form(prior, encoder) for encoder in encoder_paths} for prior in prior_paths}


def _has_closed_form(prior: str, encoder: str) -> bool | None:
    try:
        with torch.random.fork_rng([]):
            vae = build((4,), prior=prior, encoder=encoder, likelihood="Gaussian", latent_dim=2, hidden_dims=[4])
    except (TypeError, ValueError):
        return None
    try:
        check_closed_forms(TraceMeanField_ELBO(), vae.model, vae.guide, torch.zeros(2, 4))
    except ValueError:
        return False
    return True


def _options(part: type, doc: Docstring, of_pyro: bool) -> list[Option]:
    try:
        hints = get_type_hints(part.__init__)  # type: ignore[misc]
    except NameError:  # a name that only the type checker imports
        hints = {}
    helps = {parameter.arg_name: _plain(parameter.description or "") for parameter in doc.params}
    if of_pyro:
        helps = PYRO_HELP
    return [
        Option(
            name=name,
            type=_type_name(hints.get(name, type(parameter.default) if _has_default(parameter) else Any)),
            required=not _has_default(parameter),
            default=parameter.default if _has_default(parameter) else None,
            help=helps.get(name, ""),
        )
        for name, parameter in inspect.signature(part).parameters.items()
        if name not in FILLED_IN | (PYRO_LEFTOVERS if of_pyro else set())
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _has_default(parameter: inspect.Parameter) -> bool:
    return parameter.default is not inspect.Parameter.empty


def _type_name(hint: Any) -> str:
    """Write a type hint as one would say it, with the choices of a ``Literal``."""
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return " | ".join(map(str, arguments))
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(map(_type_name, arguments))
    if hint is type(None):
        return "None"
    name = getattr(get_origin(hint) or hint, "__name__", str(hint))
    name = "list" if name == "Sequence" else name
    return f"{name}[{', '.join(map(_type_name, arguments))}]" if arguments else name


def _plain(text: str) -> str:
    """Return the first sentence of a docstring's text, and its formulas where plain letters can show them."""

    def formula(match: re.Match[str]) -> str:
        plain = re.sub(r"\\([a-z]+)", lambda name: GREEK.get(name[1], name[0]), match[2])
        return match[1] + plain if "\\" not in plain else ""

    text = re.sub(r"(,? ?):math:`([^`]*)`", formula, " ".join(text.split()))
    text = re.sub(r":\w+:(?=`)|`", "", text)
    sentence = re.split(r"(?<=\.)\s", text)[0].strip(" ,;:.")
    begins_with_symbol = re.match(r"\w\b", sentence)
    return f"{sentence if begins_with_symbol else sentence[:1].upper() + sentence[1:]}." if sentence else ""


@command
def main(argv: list[str] | None = None) -> None:
    """List the parts, and for which priors and encoders the KL has a closed form."""
    parser = Parser(prog="pyro-vae parts", description="List the parts that a VAE can be made of.")
    parser.add_argument("module", nargs="?", help="List the parts of this module instead, such as one of your own.")
    parser.add_argument("--json", action="store_true", help="Print them as JSON.")
    args = parser.parse_args(argv)
    found, table = _ours() if args.module is None else _users(args.module)
    if args.json:
        parts = {kind: [asdict(part) for part in found if part.kind == kind] for kind in KINDS}
        print(json.dumps(parts | {"closed_form_kl": table}, indent=2, default=str))
    else:
        _show(found, table)


def _ours() -> tuple[list[Part], KLTable]:
    found = [
        describe(kind, part, module if part.__module__.startswith("pyro_vae.") else pyro.infer)
        for kind, (_, module) in KINDS.items()
        for part in our_parts(kind)
    ]
    names = {kind: [part.name for part in found if part.kind == kind] for kind in KINDS}
    return found, closed_form_kl(names["prior"], names["encoder"])


def _users(module_name: str) -> tuple[list[Part], KLTable]:
    """Return the parts of a user's module, and their closed forms with each other and with ours."""
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module raises when it is imported
        raise ValueError(
            f"module: expected a module in the current folder or an installed one, got {module_name!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    found = [describe(kind, part, module) for kind in KINDS for part in find_parts(kind, module)]
    if not found:
        raise ValueError(
            f"module: {module_name} defines no part, that is no class derived from pyro_vae.Prior, Encoder or "
            "Likelihood, from pyro.infer.ELBO or from pyro_vae.evidence.Proposal; name the module that does"
        )
    own = {kind: [part.class_path for part in found if part.kind == kind] for kind in KINDS}
    ours = {kind: [part.__name__ for part in our_parts(kind)] for kind in ("prior", "encoder")}
    table = closed_form_kl(own["prior"], own["encoder"] + ours["encoder"])
    if own["encoder"]:
        table |= closed_form_kl(ours["prior"], own["encoder"])
    return found, table


def _show(found: Sequence[Part], table: KLTable) -> None:
    """Print tables, framed on a terminal and bare elsewhere, at most ``WIDTH`` columns wide."""
    console = Console(highlight=False, markup=False, soft_wrap=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    for kind in KINDS:
        parts = [part for part in found if part.kind == kind]
        if parts:
            console.print(_parts_table(kind, parts, framed=console.is_terminal))
            console.print()
    if table:
        console.print(_kl_table(table, framed=console.is_terminal))
        console.print()
    console.print("To use one of them, for example:")
    console.print(f"  {_usage(found)}", soft_wrap=True)


def _parts_table(kind: str, parts: Sequence[Part], framed: bool) -> Table:
    table = _new_table(framed)
    table.add_column(TITLES.get(kind, f"{kind}s"), no_wrap=True, style="bold" if framed else "")
    table.add_column("what it is, and its options", overflow="fold")
    for part in parts:
        options = [Text(f"--{kind}.{option}", style="dim" if framed else "") for option in part.options]
        summary = Text(part.summary or "(no docstring)")
        table.add_row(part.name, Group(summary, *(Padding(option, (0, 0, 0, 2)) for option in options)))
    return table


def _kl_table(closed: KLTable, framed: bool) -> Table:
    words = {True: "closed form", False: "from samples", None: "needs options"}
    table = _new_table(framed)
    table.add_column("KL[q(z|x) || p(z)]")
    columns = list(dict.fromkeys(encoder for row in closed.values() for encoder in row))
    for encoder in columns:
        table.add_column(encoder, overflow="fold")
    for prior, row in closed.items():
        table.add_row(prior, *(words[row[encoder]] if encoder in row else "" for encoder in columns))
    return table


def _new_table(framed: bool) -> Table:
    return Table(box=SIMPLE_HEAD if framed else None, pad_edge=False, padding=(0, 2, 0, 0))


def _usage(found: Sequence[Part]) -> str:
    part = next((part for part in found if part.options), found[0])
    ours = part.class_path.startswith("pyro_vae.")
    program = "pyro-vae evaluate RUN" if part.kind == "proposal" else "python -m pyro_vae.train"
    choice = f"{program} --{part.kind} {part.name if ours else part.class_path}"
    if not part.options:
        return choice
    option = part.options[0]
    return f"{choice} --{part.kind}.{option.name} {option.name.upper() if option.required else option.default}"
