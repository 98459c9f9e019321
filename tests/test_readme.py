"""What the README shows runs, and the project is laid out as it says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", [b for b in BLOCKS if b.startswith("import")], ids=lambda code: code.split("\n")[0])
def test_python_in_the_readme_runs(code, tmp_path):
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_the_pictures_are_there():
    pictures = re.findall(r'<img src="(.*?)"', README)
    assert pictures
    for path in pictures:
        assert (ROOT / path).exists(), path


# Who may import whom, from the bottom up: a module imports only modules of earlier layers.
LAYERS = [
    {
        "base",
        "networks",
        "flows",
        "compiled",
        "program",
        "data",
        "plotting",
        "cli",
        "optim",
        "derivation",
        "distributed",
        "devices",
    },
    {"priors", "encoders", "likelihoods"},
    {"vae"},
    {"conditional"},
    {"objectives", "semi_supervised", "evidence", "inference", "build", "equations"},
    {"training", "checkpoint"},
    {"progress", "run_folder", "trained", "outputs", "evaluation_report", "page"},
    {
        "train",
        "evaluate",
        "check",
        "parts",
        "sample",
        "reconstruct",
        "encode",
        "interpolate",
        "manifold",
        "impute",
        "score",
        "classify",
        "augment",
        "report",
        "__main__",
    },
]
MODULES = sorted(p for p in (ROOT / "pyro_vae").rglob("*.py") if p.parent.name != "pyro_vae" or p.stem != "__init__")


def layer_of(name):
    return next((i for i, layer in enumerate(LAYERS) if name in layer), None)


def imported_modules(path):
    """The pyro_vae modules that a file imports, but not those that only a type checker sees."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pyro_vae":
            names = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            yield from (name for name in names if (ROOT / "pyro_vae" / name).exists() or layer_of(name) is not None)
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("pyro_vae."))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT / "pyro_vae")))
def test_imports_go_one_way(path):
    parts = path.relative_to(ROOT / "pyro_vae").with_suffix("").parts
    own = layer_of(parts[0])
    assert own is not None, f"{parts[0]} has no layer"
    for name in imported_modules(path):
        layer = layer_of(name)
        assert layer is not None, f"{name} has no layer"
        assert name == parts[0] or layer < own or (layer == own and {own} & {0, 4, 5, 6, 7}), f"{path} imports {name}"
    if parts[0] in ("vae", "objectives", "evidence"):
        forbidden = {"priors", "encoders", "likelihoods"} & set(imported_modules(path))
        assert not forbidden, f"{path} knows the concrete {forbidden}"
