"""Check every equation of the derivation from the command line: ``pyro-vae check [RUN]``."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pyro_vae.commands.arguments import LABEL_HELP, TRUST
from pyro_vae.commands.cli import Parser, command
from pyro_vae.equations import Row, check, check_derivation
from pyro_vae.runs.opening import load_run, some_data

NUM_DATA = 32


@command
def main(argv: list[str] | None = None) -> None:
    """Check each equation of the derivation; end with status 1 if one fails."""
    parser = Parser(prog="pyro-vae check", description="Check each equation of the derivation.")
    parser.add_argument("run", nargs="?", help="A run folder. Default: models so small that every term is known.")
    parser.add_argument("--label", type=str | None, help=LABEL_HELP)
    parser.add_argument("--trust", **TRUST)
    parser.add_argument("--json", action="store_true", help="Print the rows as JSON.")
    args = parser.parse_args(argv)
    if args.run is None:
        rows = check_derivation()
    else:
        vae = load_run(args.run, args.label, trust=args.trust)
        rows = check(vae, some_data(args.run, vae, NUM_DATA).test[:NUM_DATA])
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        show(rows)
    if any(row.verdict == "FAIL" for row in rows):
        raise SystemExit(1)


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a table, and their notes below it."""
    console = Console() if sys.stdout.isatty() else Console(width=200, color_system=None)
    table = Table(box=box.SIMPLE if console.is_terminal else None, pad_edge=False)
    for name in ("equation", "left", "right", "difference", "standard error", "verdict"):
        table.add_column(name, justify="left" if name in ("equation", "verdict") else "right")
    notes: list[str] = []
    for row in rows:
        mark = ""
        if row.note:
            if row.note not in notes:
                notes.append(row.note)
            mark = f" [{notes.index(row.note) + 1}]"
        style = {"pass": "green", "FAIL": "bold red"}.get(row.verdict, "dim")
        numbers = [""] * 4
        if row.left is not None:
            error = f"{row.standard_error:.2g}" if row.standard_error else "exact"
            numbers = [f"{row.left:.6g}", f"{row.right:.6g}", f"{row.difference:.2g}", error]
        table.add_row(Text(row.equation + mark), *numbers, Text(row.verdict, style))
    console.print(table)
    for number, note in enumerate(notes, 1):
        console.print(Text(f"[{number}] {note}"))
