"""The options that say which rows of a table to sample: ``--given sex=female,age=40 --where "income>=1000"``."""

from collections.abc import Iterator

from jsonargparse import Namespace

from pyro_vae.commands.arguments import Opened, options_of
from pyro_vae.commands.cli import Parser
from pyro_vae.commands.outputs import check_samples, some_of, with_error
from pyro_vae.commands.progress import progress_bar
from pyro_vae.data.labels import in_words
from pyro_vae.data.tables.conditions import given_cells
from pyro_vae.inference import Conditioned, sample_given
from pyro_vae.runs.opening import condition_of, of_label
from pyro_vae.vae import VAE

_OF_EACH = {"given": ("num_samples", "num_starts", "steps"), "where": ("max_draws",)}
_ALONE = ("near", "temperature", "mean")  # options of sample without these


def add_options(parser: Parser) -> None:
    """Add the options."""
    again = "May be repeated. A comma is between two where a column and a sign follow; all others belong to values."
    parser.add_argument(
        "--given",
        action="append",
        default=[],
        metavar="COLUMN=VALUE,…",
        help="Of a table: cells that are known, such as sex=female,age=40, as the table has them; the others are drawn "
        f"given these, by importance resampling as in impute. {again}",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION,…",
        help="Of a table: keep the rows alone that meet this, such as age>=60,sex!=male, and draw until there are "
        f"enough. The signs are =, !=, <, <=, >, >=, and in {{a,b}} of categories. {again}",
    )
    parser.add_options(sample_given, *(option for options in _OF_EACH.values() for option in options))


def check_options(args: Namespace, given: Namespace) -> None:
    """Refuse options that would have no effect, or that don't go together.

    Raises:
        ValueError: Naming the option.
    """
    for option in _ALONE if args.given or args.where else ():
        if option in given:
            raise ValueError(f"--{option}: --given and --where draw rows of P(row | …) as it is; leave it out")
    for needed, options in _OF_EACH.items():
        if not all(map(str.strip, args[needed])):
            raise ValueError(f"--{needed}: expected a column, a sign and a value, such as age=40, got nothing")
        if not args[needed] and (unused := next((option for option in options if option in given), None)):
            raise ValueError(f"--{unused} belongs to --{needed}; leave it out")


def read_wanted(opened: Opened) -> tuple[VAE, dict[str, str], str]:
    """Return the model of the rows that are wanted, their cells that are given, and their condition.

    Where a cell names the class of a run with ``--condition``, the model is that of the class.

    Raises:
        ValueError: When it is no class, is said twice, or has to be said.
    """
    args, vae = opened.args, opened.vae
    if not args.given and not args.where:
        return vae, {}, ""
    table, condition = vae.config.table, condition_of(opened.run)
    names = [column.name for column in (table.columns if table else ())] + ([condition] if condition else [])
    cells = given_cells(",".join(args.given), names)
    label = cells.pop(condition, None) if condition else None
    if args.label is None:
        if label is not None and label not in vae.config.class_names:
            expected = in_words(vae.config.class_names)
            raise ValueError(f"--given {condition}={label}: expected one of the classes {expected}")
        vae = of_label(opened.run, vae, label)
    elif label is not None:
        raise ValueError(f"--given {condition}={label}: --label {args.label} says the class already; leave one out")
    return vae, cells, ",".join(args.where)


def draw(vae: VAE, num: int, cells: dict[str, str], where: str, args: Namespace) -> Conditioned:
    """Draw rows, and show how far it is."""
    check_samples("num_samples", args.num_samples)
    with progress_bar("drawing") as progress:
        return sample_given(vae, num, cells, where, progress=progress, **options_of(sample_given, args))


def source(cells: dict[str, str], where: str) -> str:
    """Say what the rows are drawn from.

    Example:
        >>> source({"sex": "female"}, "age>=60")
        'of P(row | sex=female, age>=60)'
    """
    return f"of P(row | {', '.join([*(f'{name}={value}' for name, value in cells.items()), *filter(None, [where])])})"


def words(made: Conditioned, where: str, names: list[str]) -> Iterator[str]:
    """Yield what there is to say of the draws, line by line."""
    if (evidence := made.evidence) is not None:
        figure = with_error(evidence.log_evidence.item(), evidence.se.item(), 3)
        yield (
            f"given       log P(given) {figure} nats; ESS {evidence.ess.item():,.0f} of "
            f"{int(evidence.num_samples):,} weights, k-hat {evidence.khat.item():.2f}"
        )
        if not evidence.reliable.all():
            yield "            too high: the rows may be too alike; try more --num_samples, or more --num_starts"
    if made.far_out.any():
        columns = some_of([names[d] for d in made.far_out.nonzero()[:, 0]])
        yield f"implausible {columns}: far beyond draws from the model, which knows nothing of such rows"
    if where:
        probability, se = made.probability
        yield f"where       met by {100 * probability:.3g} % ± {100 * se:.1g} % of {made.tried:,} draws"
