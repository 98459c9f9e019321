"""Compare a synthetic table with the real one that it was made after: ``pyro-vae compare-table REAL SYNTHETIC``."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from pyro_vae.commands.arguments import TRUST
from pyro_vae.commands.cli import Parser, command
from pyro_vae.commands.outputs import Results, some_of, to_csv, with_error
from pyro_vae.data.tables import find_schema, read_frame, wanted_kinds
from pyro_vae.data.tables.column import SET_ASIDE
from pyro_vae.inference import Comparison, compare_tables
from pyro_vae.machine.devices import check_seed
from pyro_vae.machine.files import named
from pyro_vae.machine.lock import taken
from pyro_vae.machine.versions import versions
from pyro_vae.runs.checkpoint import load
from pyro_vae.runs.folder import check_results

if TYPE_CHECKING:
    import pandas

NAME = "compare-table"


def parser() -> Parser:
    """Return the parser."""
    description = "Compare a synthetic table with the real one that it was made after."
    parser = Parser(prog=f"pyro-vae {NAME}", description=description)
    add = parser.add_argument
    add("real", help="The table that the synthetic one was made after.")
    add("synthetic", help="The synthetic one, such as RUN/sample/samples.csv.")
    add(
        "--held_out",
        type=str | None,
        metavar="FILE",
        help="Rows of the same source as the real ones, that nothing was made after: with them, each figure has one "
        "beside it that says what draws from the true distribution would get.",
    )
    add("--target", type=str | None, metavar="COLUMN", help="A column to predict from the others, in held-out rows.")
    add(
        "--run",
        type=str | None,
        help="A run whose columns are of the kinds that it was trained with. Default: what those of REAL look like.",
    )
    add("--trust", **TRUST)
    add("--schema", type=str | None, help="What some columns are, as for training, such as age=count,name=dropped.")
    add("--max_rows", type=int, default=10_000, help="So many rows of each table at most, drawn at random.")
    add("--seed", type=int, default=0, help="Of what is drawn, and of the learners.")
    add("--out", type=str | None, help=f"The folder for the results. Default: {NAME}, in the current one.")
    add("--overwrite", action="store_true", help="Replace earlier results.")
    return parser


@command
def main(argv: list[str] | None = None) -> None:
    """Compare tables, and leave the files in a folder."""
    args = parser().parse_args(argv)
    check_seed(args.seed)
    folder = named(NAME if args.out is None else args.out)
    with taken(folder, f"--out: another process writes into {folder}; wait for its end, or name another folder"):
        check_results(folder, NAME, args.overwrite)
        compare_and_write(Results(folder, "comparison"), args)


def compare_and_write(results: Results, args: Namespace) -> None:
    """Compare the tables that the options name, write the figures and show them."""
    files = {name: args[name] for name in ("real", "synthetic", "held_out") if args[name] is not None}
    tables, left_out = read_tables(files, args)
    comparison = compare_tables(**tables, target=args.target, max_rows=args.max_rows, seed=args.seed)
    layout = replace(comparison.layout, left_out={**left_out, **comparison.layout.left_out})
    comparison = replace(comparison, layout=layout)
    for name, file in files.items():
        print(f"{name.replace('_', ' '):<12}{file}: {len(tables[name]):,} rows")
    summary = files | comparison.as_dict() | {"seed": args.seed, "max_rows": args.max_rows}
    results.write(
        {
            "columns.csv": to_csv(comparison.columns.reset_index().to_dict("list")),
            "pairs.csv": to_csv(comparison.pairs.to_dict("list")),
            "comparison.json": summary | {"protocol": protocol(comparison, args), "versions": versions()},
        }
    )
    print(*words(comparison), sep="\n")
    results.add("html", lambda path: write_page(path, comparison, files, args))
    results.conclude()


def read_tables(files: Mapping[str, str], args: Namespace) -> tuple[dict[str, "pandas.DataFrame"], dict[str, str]]:
    """Read tables, all as the kinds of columns that the real one has, or the run; and say which columns are set aside.

    Raises:
        FileNotFoundError: When there is no such file, or no run.
        ValueError: When it is no table, or holds what the real one can't.
    """
    frame, form = read_frame(files["real"], Path(files["real"]))
    schema = find_schema(frame, form=form, wanted=wanted_kinds(args.schema))
    if args.run is not None:
        if (table := load(named(args.run), trust=args.trust).config.table) is None:
            raise ValueError(
                f"--run: expected a run on a table, and no likelihood for all of its columns, got {args.run}"
            )
        known = {column.name: column for column in table.columns}
        schema = replace(schema, columns=tuple(known.get(column.name, column) for column in schema.columns))
    own = {column.name: column.kind for column in schema.columns}
    tables, left_out = {}, {name: kind for name, kind in own.items() if kind in SET_ASIDE}
    for which, file in files.items():
        if which != "real":
            frame, form = read_frame(file, Path(file), names=list(own))
            left_out |= {str(name): "not in real" for name in frame.columns if name not in own}
        try:
            tables[which] = schema.values(frame, form.decimal)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    return tables, left_out


def write_page(path: Path, comparison: Comparison, files: dict[str, str], args: Namespace) -> None:
    """Write the page with the pictures."""
    from pyro_vae.machine.files import write_file
    from pyro_vae.runs.page.comparison import comparison_page

    names = {name: Path(file).name for name, file in files.items()}
    write_file(path, comparison_page(comparison, names, protocol(comparison, args)))


def protocol(comparison: Comparison, args: Namespace) -> str:
    """Return how the figures came about."""
    fresh = "held-out" if comparison.real_against_real is not None else "real"
    text = (
        f"at most {args.max_rows:,} rows of each table, drawn with seed {args.seed}; two-sample tests: AUC of "
        f"synthetic against {fresh} rows by five-fold cross-validation, scikit-learn's defaults, ± DeLong's standard "
        "error with Nadeau and Bengio's allowance for folds that share rows"
    )
    if comparison.learned is not None:
        text += "; the target: gradient boosting trained on real and on as many synthetic rows, tested on held-out ones"
    if comparison.copies.nearest_is_real is not None:
        text += "; nearest rows: numbers as normal scores of their ranks, categories as coordinates, all real rows"
    return text


def words(comparison: Comparison) -> Iterator[str]:
    """Yield which columns are compared, and a short table of the figures."""
    left_out = [f"{name} ({why})" for name, why in comparison.layout.left_out.items()]
    yield f"columns     {len(comparison.layout.names)}" + (f"; not compared: {some_of(left_out)}" if left_out else "")
    heads = "", "synthetic", "for comparison", ""
    for row in [heads, *figures(comparison)]:
        yield "            {:<24}{:<17}{:<17}{}".format(*row).rstrip()


def figures(comparison: Comparison) -> Iterator[tuple[str, str, str, str]]:
    """Yield each figure: what it is, of the synthetic table, what it is compared with, and what that is."""
    of_held_out = "held-out rows" if "held_out" in comparison.tables else ""
    pairs = comparison.pairs
    for what, table in {"column": comparison.columns, "pair": pairs}.items():
        beside = f"{table['error_held_out'].mean():.3f}" if of_held_out else ""
        if len(table):
            yield f"{what} error, mean", f"{table['error'].mean():.3f}", beside, of_held_out
    chance = comparison.real_against_real
    for name, auc in comparison.two_sample.items():
        beside, of = ("0.5", "no difference") if chance is None else (with_error(*chance[name], 3), "real rows")
        yield f"AUC {name}", with_error(*auc, 3), beside, of
    if (found := comparison.learned) is not None:
        from_synthetic, from_real = with_error(*found.from_synthetic, 3), with_error(*found.from_real, 3)
        yield f"{found.measure} of {found.target}"[:23], from_synthetic, from_real, "learned from real rows"
    copies = comparison.copies
    others = of_held_out or "real rows, to another"
    yield "equal to a real row", f"{copies.identical:.1%}", f"{copies.identical_by_chance:.1%}", others
    if copies.nearest_is_real is not None:
        value, se = copies.nearest_is_real
        share = f"{with_error(100 * value, 100 * se, 1)}%"
        yield "nearest to a real row", share, f"{copies.chance:.1%}", "nothing learned by heart"
