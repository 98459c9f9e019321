"""Every example runs, in a folder of its own, and leaves nothing in the project's."""

import re
from pathlib import Path

import pytest

from tests.processes import run_script

OPTIONS = {"article": ["--data", "digits", "--epochs", "3"]}
EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


def visible(project: Path) -> set[Path]:
    """Return the files of the project's first level, and all of the examples."""
    return set(project.glob("[!.]*")) | set((project / "examples").rglob("*"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path):
    before = visible(path.parent.parent)
    result = run_script(path, *OPTIONS.get(path.stem, ["--epochs", "2"]), folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    figures = [float(figure) for figure in re.findall(r"-?\d+\.\d+", result.stdout)]
    assert figures, "it prints no figures"
    assert not re.search(r"\b(nan|inf)\b", result.stdout)
    assert visible(path.parent.parent) == before


def test_there_are_examples():
    assert {"walkthrough", "swap_prior", "own_likelihood", "two_layers"} <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_says_what_it_is(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith('"""')
    assert f"python examples/{path.name}" in path.read_text()
