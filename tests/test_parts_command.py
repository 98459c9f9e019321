"""The list of parts, and parts of a user's own in a file beside the current folder."""

import importlib
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import pyro_vae
from pyro_vae.commands.parts import KINDS, closed_form_kl, describe, main, our_parts
from tests.processes import run_script

SCRIPT = Path(sysconfig.get_path("scripts"), "pyro-vae")
QUICK = ["--epochs", "1", "--hidden_dims", "[8]", "--latent_dim", "2"]

OWN = '''
import pyro.distributions as dist
import torch
from pyro_vae import Encoder, Likelihood, Prior
from pyro_vae.evidence import Proposal
from pyro_vae.networks import bounded_exp
from pyro_vae.priors import GaussianMixture  # not defined here, so not listed


class StudentT(Likelihood):
    """Independent Student's t around the decoder's output.

    Args:
        df: Degrees of freedom [of each pixel].
    """

    pixels = "dequantized"
    params_per_element = 2

    def __init__(self, df: float, untyped=None):
        super().__init__()
        self.df = df

    def forward(self, raw):
        return dist.StudentT(self.df, raw[..., 0], bounded_exp(raw[..., 1])).to_event(1)


class Shifted(Prior):
    def __init__(self, z_dim: int):
        super().__init__()
        self.register_buffer("loc", torch.ones(z_dim))

    def forward(self):
        return dist.Normal(self.loc, 1.0).to_event(1)


class FromPrior(Proposal):
    """Sample from the prior."""

    def __call__(self, model, guide, x, **how):
        from pyro_vae.evidence import prior

        return prior(model)


class NeedsOptions(Shifted):
    """A prior that can't be built without options."""

    def __init__(self, z_dim: int, shift: float):
        super().__init__(z_dim)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The current folder, with the file mypart.py in it and on Python's path."""
    (tmp_path / "mypart.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("mypart", None)
    importlib.invalidate_caches()


def listed(capsys, *arguments):
    main(list(arguments))
    return capsys.readouterr().out


def test_every_part_and_option_is_listed(capsys):
    out = listed(capsys)
    names = [line.split()[0] for line in out.splitlines() if line.strip()]
    for kind in KINDS:
        for part in our_parts(kind):
            assert part.__name__ in names
            for option in describe(kind, part).options:
                assert f"--{kind}.{option.name}: {option.type[:6]}" in out
    assert max(map(len, out.splitlines())) <= 100
    assert ":math:" not in out
    assert "\\" not in out
    assert "(no docstring)" not in out


def test_terminals_get_a_frame_and_no_more_than_their_width(capsys, monkeypatch):
    monkeypatch.setattr(
        pyro_vae.commands.parts, "Console", lambda **options: Console(force_terminal=True, width=70, **options)
    )
    out = listed(capsys)
    assert "──" in out
    assert "GaussianMixture" in out


def test_the_json_holds_the_same(capsys):
    found = json.loads(listed(capsys, "--json"))
    (mixture,) = [part for part in found["prior"] if part["name"] == "GaussianMixture"]
    assert mixture["class_path"] == "pyro_vae.priors.GaussianMixture"
    assert mixture["options"] == [
        {"name": "components", "type": "int", "required": False, "default": 10, "help": "Number of Gaussians."}
    ]
    assert {"Trace_ELBO", "TraceMeanField_ELBO", "RenyiELBO"} <= {part["name"] for part in found["objective"]}
    for kind in KINDS:
        for part in found[kind]:
            module, _, name = part["class_path"].rpartition(".")
            assert issubclass(getattr(importlib.import_module(module), name), KINDS[kind][0])
    closed = found["closed_form_kl"]
    assert closed.keys() == {part["name"] for part in found["prior"]}
    assert closed["StandardNormal"]["DiagonalNormal"] is True  # Kingma & Welling (2014), appendix B
    assert closed["GaussianMixture"]["DiagonalNormal"] is False  # there is none
    assert all(row.keys() == {part["name"] for part in found["encoder"]} for row in closed.values())


def test_the_types_of_options():
    types = {option.name: option.type for option in describe("likelihood", pyro_vae.likelihoods.Gaussian).options}
    assert types == {"scale": "shared | per_element | predicted | float", "min_scale": "float"}
    groups, packed = describe("likelihood", pyro_vae.likelihoods.Columns).options
    assert (groups.required, groups.type) == (True, "list[tuple[int, Likelihood]]")
    assert (packed.required, packed.type) == (False, "bool")


def test_parts_of_a_users_own(capsys, own):
    out = listed(capsys, "mypart")
    assert "Independent Student's t around the decoder's output." in out
    assert "--likelihood.df: float, required. Degrees of freedom [of each pixel]." in out
    assert "GaussianMixture" not in out
    found = json.loads(listed(capsys, "mypart", "--json"))
    assert [part["class_path"] for part in found["prior"]] == ["mypart.NeedsOptions", "mypart.Shifted"]
    assert [part["class_path"] for part in found["proposal"]] == ["mypart.FromPrior"]
    assert found["closed_form_kl"]["mypart.Shifted"]["DiagonalNormal"] is True
    assert found["closed_form_kl"]["mypart.NeedsOptions"]["DiagonalNormal"] is None


@pytest.mark.parametrize(
    ("module", "message"), [("no_such_module", "no_such_module"), ("json", "json defines no part")]
)
def test_what_is_no_module_of_parts_is_refused_in_one_line(capsys, module, message):
    with pytest.raises(SystemExit) as exit:
        main([module])
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_closed_forms_leave_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    closed_form_kl(["FlowPrior"], ["DiagonalNormal"])
    assert torch.equal(torch.rand(3), expected)


# With python -m, the current folder is where Python looks first; with a script, it is the script's own.
AS_A_MODULE = "import runpy\nrunpy.run_module('pyro_vae', run_name='__main__', alter_sys=True)\n"


@pytest.mark.parametrize("way", ["script", "module"])
def test_a_part_in_a_file_beside_the_current_folder(way, own):
    (own / "module.py").write_text(AS_A_MODULE)

    def train(*arguments):
        result = run_script({"script": SCRIPT, "module": own / "module.py"}[way], "train", *arguments, folder=own)
        return result.returncode, result.stdout, result.stderr.strip()

    code, out, err = train(*QUICK, "--likelihood", "mypart.StudentT", "--likelihood.df", "3", "--run", "run")
    assert (code, err) == (0, "")
    assert "likelihood StudentT" in out
    assert json.loads((own / "run" / "summary.json").read_text())["likelihood"] == "mypart.StudentT"
    assert pyro_vae.load("run", trust=["mypart"]).likelihood.df == 3

    (own / "mypart.py").unlink()
    del sys.modules["mypart"]
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match=r"^[^\n]*'mypart.StudentT': No module named 'mypart'[^\n]*$"):
        pyro_vae.load("run", trust=["mypart"])
    code, out, err = train("--resume", "run", "--epochs", "2", "--trust", "mypart")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "mypart.StudentT: no module mypart is in the current folder or installed" in err


TABLE = ["train", *QUICK, "--data", "table.csv", "--likelihood", "Gaussian", "--run", "run"]


@pytest.mark.parametrize("arguments", [["parts", "--json"], TABLE], ids=["parts", "train"])
def test_no_file_in_the_current_folder_stands_for_a_library_that_is_not_installed(arguments, tmp_path):
    np.savetxt(tmp_path / "table.csv", np.random.default_rng(0).normal(size=(60, 3)), delimiter=",")
    for name in ("charset_normalizer", "cython", "flint", "gmpy2", "lz4", "psutil", "scikits", "sksparse", "uarray"):
        (tmp_path / f"{name}.py").write_text(f"open('it_ran', 'a').write('{name}')")
    result = subprocess.run([SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert not (tmp_path / "it_ran").exists()


def test_a_file_in_the_current_folder_shadows_nothing_installed(tmp_path):
    (tmp_path / "zuko.py").write_text("raise SystemExit('the wrong one')")
    result = run_script(SCRIPT, "parts", "--json", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_commands_are_listed():
    result = subprocess.run([SCRIPT], capture_output=True, text=True, check=True)
    assert {"train", "parts", "check"} <= set(result.stdout.split())
