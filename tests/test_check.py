"""The check passes on what is right, and fails on what is wrong."""

import inspect
import json
import subprocess
import sys
import types

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vae
from pyro_vae import check, derivation
from pyro_vae.encoders import DiagonalNormal, FullRankNormal
from pyro_vae.likelihoods import Bernoulli, Gaussian
from pyro_vae.networks import mlp
from pyro_vae.priors import GaussianMixture, StandardNormal

# Each closed form, broken on purpose: a sign, a factor 1/2, a variance for a deviation, a mean for a sum.
MUTATIONS = [
    ("reparameterize", "loc + scale * eps", "loc - scale * eps"),
    ("reparameterize", "loc + scale * eps", "loc + 0.5 * scale * eps"),
    ("reparameterize", "loc + scale * eps", "loc + scale.square() * eps"),
    ("log_normal", "-0.5 * (((z", "0.5 * (((z"),
    ("log_normal", "-0.5 * (((z", "-(((z"),
    ("log_normal", "(z - loc) / scale", "(z - loc) / scale.square()"),
    ("log_normal", "math.log(2 * math.pi)).sum(-1)", "math.log(2 * math.pi)).mean(-1)"),
    ("kl_standard_normal", "- 1 - scale.square().log()", "- 1 + scale.square().log()"),
    ("kl_standard_normal", "0.5 * (loc", "(loc"),
    ("kl_standard_normal", "+ scale.square() - 1", "+ scale - 1"),
    ("kl_standard_normal", ".sum(-1)", ".mean(-1)"),
    ("kl_diagonal_normals", "ratio - 1 - ratio.log()", "ratio - 1 + ratio.log()"),
    ("kl_diagonal_normals", "0.5 * (((loc", "(((loc"),
    ("kl_diagonal_normals", "(scale_q / scale_p).square()", "scale_q / scale_p"),
    ("kl_diagonal_normals", ".sum(-1)", ".mean(-1)"),
    ("kl_normals", "- cov_q.logdet()", "+ cov_q.logdet()"),
    ("kl_normals", "0.5 * (mahalanobis", "(mahalanobis"),
    ("kl_normals", "cov_p.inverse()", "cov_p.inverse().square()"),
    ("kl_normals", '"...ij,...ji->...", precision, cov_q)', '"...ij,...ji->...", precision, cov_q) / 2'),
    ("binary_cross_entropy", "+ torch.xlogy(1 - x", "- torch.xlogy(1 - x"),
    ("binary_cross_entropy", "return -(", "return -0.5 * ("),
    ("binary_cross_entropy", ".sum(-1)", ".mean(-1)"),
    ("article_loss", "bce + kld", "bce - kld"),
    ("article_loss", "-0.5 * (1 + log_var", "-(1 + log_var"),
    ("article_loss", "log_var.exp()", "(0.5 * log_var).exp()"),
    ("article_loss", "log_var.exp()).sum()", "log_var.exp()).mean()"),
    ("article_loss", "x).sum()", "x).mean()"),
    ("LinearGaussian.log_evidence", "+ self.scale.square().diag()", "- self.scale.square().diag()"),
    ("LinearGaussian.log_evidence", "-0.5 * (mahalanobis", "-(mahalanobis"),
    ("LinearGaussian.log_evidence", "self.scale.square()", "self.scale"),
    ("LinearGaussian.posterior", "(x - self.bias)", "(self.bias - x)"),
    ("LinearGaussian.posterior", "self.scale.square()", "self.scale"),
    ("LinearGaussian.posterior", "precision.inverse()", "precision.inverse() / 2"),
    ("LinearGaussian.expected_log_likelihood", "- 0.5 * (spread", "+ 0.5 * (spread"),
    ("LinearGaussian.expected_log_likelihood", "- 0.5 * (spread", "- (spread"),
    ("LinearGaussian.expected_log_likelihood", "self.scale.square()", "self.scale"),
    ("LinearGaussian.expected_log_likelihood", ".sum(-1)", ".mean(-1)"),
    ("LinearGaussian.elbo", "- kl", "+ kl"),
    ("LinearGaussian.elbo", "- kl", "- 0.5 * kl"),
]


def failures(rows: list[check.Row]) -> list[str]:
    return [row.equation for row in rows if row.verdict == "FAIL"]


@pytest.fixture
def quick(monkeypatch):
    """Few draws: what the exact rows see needs none."""
    monkeypatch.setattr(check, "NUM_DRAWS", 50)
    monkeypatch.setattr(check, "NUM_GRADIENTS", 10)
    monkeypatch.setattr(check, "variance_rows", lambda *arguments: [])


@pytest.fixture(scope="module")
def rows() -> list[check.Row]:
    return check.check_derivation()


def test_the_derivation_holds(rows):
    assert not failures(rows)
    exact = [row for row in rows if row.standard_error == 0 and row.equation != check.BOUND]
    assert len(exact) > 12
    assert max(abs(row.difference) for row in exact) < 1e-10
    assert sum(row.standard_error > 0 and row.verdict == "pass" for row in rows) == 4


@pytest.mark.parametrize(("name", "right", "wrong"), MUTATIONS)
def test_a_broken_closed_form_fails(name, right, wrong, quick, monkeypatch):
    function = derivation
    for part in name.split("."):
        function = getattr(function, part)
    source = inspect.getsource(function)
    code = source.split('"""')[-1]
    assert code.count(right) == 1
    module = inspect.getsource(derivation).replace(source, source.replace(code, code.replace(right, wrong)))
    broken = types.ModuleType("broken")
    monkeypatch.setitem(sys.modules, "broken", broken)  # dataclasses look their module up
    exec(compile(module, "broken", "exec"), broken.__dict__)
    monkeypatch.setattr(check, "derivation", broken)
    assert failures(check.check_derivation())


def test_a_program_that_draws_with_the_variance_fails(quick, monkeypatch):
    def with_variance(self, x):
        loc, log_scale = self.network(x).chunk(2, dim=-1)
        return WrongDraws(loc, log_scale.exp()).to_event(1)

    class WrongDraws(dist.Normal):
        def rsample(self, sample_shape=()):
            return self.loc + self.scale.square() * torch.randn(self.shape(sample_shape)).to(self.loc)

    monkeypatch.setattr(DiagonalNormal, "forward", with_variance)
    assert "E_Q[(z - mu)^2 / sigma^2] = 1, z from the Pyro guide" in failures(check.check_derivation())


def test_the_variance_rows_say_which_is_smaller(rows):
    notes = {row.equation: row.note for row in rows if row.verdict == "measured"}
    analytic_against_landing = [note for equation, note in notes.items() if "analytic KL, sticking" in equation]
    assert len(notes) == 6
    assert analytic_against_landing[0].startswith("the left one")  # far from the posterior the closed form wins
    assert analytic_against_landing[1].startswith("the right one")  # near it the path gradient does


def trained(**parts) -> tuple[pyro_vae.VAE, torch.Tensor]:
    torch.manual_seed(1)
    parts = {
        "prior": StandardNormal(2),
        "encoder": DiagonalNormal(mlp(6, [16], 4)),
        "decoder": mlp(2, [16], (6, 1)),
        "likelihood": Bernoulli(),
    } | parts
    vae = pyro_vae.VAE(**parts)
    x = (torch.rand(512, 1) + 0.3 * torch.rand(512, 6)).round().clamp(0, 1)
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), pyro.infer.Trace_ELBO())
    for _ in range(200):
        svi.step(x)
    return vae, x[:16]


def test_a_trained_model_passes_and_is_left_alone():
    vae, x = trained()
    before, state = {name: value.clone() for name, value in vae.state_dict().items()}, torch.get_rng_state()
    names = set(pyro.get_param_store().keys())
    rows = check.check(vae, x)
    assert not failures(rows)
    assert [row.equation for row in rows if row.verdict == "not applicable"] == [check.TIGHT]
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert names == set(pyro.get_param_store().keys())


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"prior": GaussianMixture(2, components=3)}, "GaussianMixture"),
        ({"encoder": FullRankNormal(mlp(6, [16], 2 + 3), 2)}, "FullRankNormal is not a diagonal normal"),
        ({"likelihood": Gaussian(scale=0.5)}, "Gaussian is not the article's Bernoulli"),
    ],
)
def test_rows_without_a_closed_form_are_marked(parts, reason, monkeypatch):
    monkeypatch.setattr(check, "NUM_GRADIENTS", 50)
    rows = check.check(*trained(**parts))
    assert not failures(rows)
    assert any(reason in row.note for row in rows if row.verdict == "not applicable")
    assert all(row.note for row in rows if row.verdict == "not applicable")


def test_a_loss_that_is_no_density_has_no_evidence(quick):
    vae, x = trained(likelihood=Bernoulli(grey=True))
    rows = {row.equation: row for row in check.check(vae, 0.5 * x)}
    assert rows[check.PRIOR_EXPECTATION].verdict == "not applicable"
    assert rows["TraceMeanField_ELBO = BCE + KLD, equal noise"].verdict == "pass"


def test_command_line(quick, capsys, monkeypatch):
    check.main(["--json"])
    rows = json.loads(capsys.readouterr().out)
    assert set(rows[0]) == {"equation", "left", "right", "difference", "standard_error", "verdict", "note"}
    check.main([])
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["equation", "left", "right", "difference", "standard", "error", "verdict"]
    assert check.IDENTITY in "\n".join(table)
    monkeypatch.setattr(check, "ROUNDING", -1.0)
    with pytest.raises(SystemExit) as stop:
        check.main([])
    assert stop.value.code == 1


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "pyro_vae.check", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
