"""What the README shows runs, and the project is laid out as it says."""

import ast
import json
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from pyro_vae import __version__
from tests.processes import run_script

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", [b for b in BLOCKS if b.startswith("import")], ids=lambda code: code.split("\n")[0])
def test_python_in_the_readme_runs(code, tmp_path):
    (tmp_path / "shown.py").write_text(code)
    ended = run_script(tmp_path / "shown.py", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_the_pictures_are_there():
    pictures = re.findall(r'<img src="(.*?)"', README)
    assert pictures
    for path in pictures:
        assert (ROOT / path).exists(), path


# Who may import whom, from the bottom up: a module imports only from earlier lines, or from its own package.
LAYERS = [
    {"machine"},
    {"compiled", "data", "plotting"},
    {"base", "networks", "distributions"},
    {"priors", "encoders", "likelihoods"},
    {"vae"},
    {"conditional"},
    {"program"},
    {"objectives", "evidence"},
    {"inference"},
    {"equations"},
    {"build"},
    {"testing"},
    {"training"},
    {"runs"},
    {"commands"},
    {"train", "__main__"},
]
PARTS = {"priors", "encoders", "likelihoods"}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted((ROOT / "pyro_vae").rglob("*.py"))}


def imports(name):
    """The modules of this package that a module imports, but not those that only a type checker sees."""
    tree = ast.parse(MODULES[name].read_text())
    hidden = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from {inner if inner in MODULES else node.module} & MODULES.keys()
        elif isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & MODULES.keys()


def layer_of(name):
    part = name.split(".")[1]
    (layer,) = (i for i, layer in enumerate(LAYERS) if part in layer)
    return layer


@pytest.mark.parametrize("name", [name for name in MODULES if name != "pyro_vae"])
def test_imports_go_one_way(name):
    for other in imports(name):
        if other == "pyro_vae" or other.split(".")[1] != name.split(".")[1]:
            assert other != "pyro_vae", f"{name} imports the package's own front"
            assert layer_of(other) < layer_of(name), f"{name} imports {other}"
    if name == "pyro_vae.vae" or layer_of(name) in (6, 7):
        forbidden = [other for other in imports(name) if other.split(".")[1] in PARTS]
        assert not forbidden, f"{name} knows the concrete {forbidden}"


@pytest.mark.parametrize("package", sorted(set().union(*LAYERS)))
def test_imports_within_a_package_go_one_way(package):
    own = [name for name in MODULES if name.split(".")[1:2] == [package]]
    graph = {name: {other for other in imports(name) if other in own} for name in own}
    list(TopologicalSorter(graph).static_order())  # refuses a circle


def test_opening_a_run_does_not_import_the_trainer():
    reached, found = set(), ["pyro_vae.runs.opening"]
    while found:
        name = found.pop()
        reached.add(name)
        found += [other for other in imports(name) if other not in reached]
    assert not [name for name in reached if name.split(".")[1:2] in (["training"], ["commands"])]


# As if nothing had been installed but what it depends on.
IN_A_BARE_CLONE = """
import importlib.metadata

real = importlib.metadata.Distribution.from_name.__func__

def hide(cls, name):
    if name.replace("_", "-").lower() == "pyro-vae":
        raise importlib.metadata.PackageNotFoundError(name)
    return real(cls, name)

importlib.metadata.Distribution.from_name = classmethod(hide)

import pyro_vae
from pyro_vae.commands import classify, evaluate, score, train

tiny = "--epochs 1 --latent_dim 2 --hidden_dims [8] --condition label --run run".split()
train.main(tiny)
few = "--num_samples 2 --max_examples 5".split()
evaluate.main(["run", *few])
classify.main(["run", *few])
score.main(["run", "--label", "0", *few])
print(pyro_vae.__version__)
"""


def test_a_clone_that_is_not_installed_trains_and_evaluates(run_code, tmp_path):
    ran = run_code(IN_A_BARE_CLONE, tmp_path)
    assert ran.returncode == 0, ran.stderr
    version = ran.stdout.split()[-1]
    written = [json.loads(path.read_text()) for path in sorted((tmp_path / "run").rglob("*.json"))]
    assert [result["versions"]["pyro-vae"] for result in written if "versions" in result] == [version] * 4


def test_every_module_is_typed_and_the_version_is_stated_once():
    assert (ROOT / "pyro_vae" / "py.typed").exists()
    assert not re.search(r"^version\s*=", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    path = re.search(r'\[tool\.hatch\.version\]\npath = "(.*?)"', (ROOT / "pyproject.toml").read_text())[1]
    assert f'__version__ = "{__version__}"' in (ROOT / path).read_text()
