"""The check passes on what is right, and fails on what is wrong."""

import dataclasses
import inspect
import json
import subprocess
import sys
import textwrap

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vae
from pyro_vae import equations
from pyro_vae.commands import check
from pyro_vae.encoders import DiagonalNormal, FullRankNormal
from pyro_vae.equations import closed_forms as derivation
from pyro_vae.equations import densities, evidence, rows
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


FEW = {"num_draws": 20, "num_gradients": 4}  # what the exact rows see needs no draws


def failures(table: list[rows.Row]) -> list[str]:
    return [row.equation for row in table if row.verdict == "FAIL"]


@pytest.fixture(scope="module")
def table() -> list[rows.Row]:
    return equations.check_derivation(num_gradients=100)


def test_the_derivation_holds(table):
    assert not failures(table)
    exact = [row for row in table if row.standard_error == 0 and row.equation != evidence.BOUND]
    assert len(exact) > 12
    assert max(abs(row.difference) for row in exact) < 1e-10
    assert sum(row.standard_error > 0 and row.verdict == "pass" for row in table) == 4


@pytest.mark.parametrize(("name", "right", "wrong"), MUTATIONS)
def test_a_broken_closed_form_fails(name, right, wrong, monkeypatch):
    *outer, own = name.split(".")
    owner = getattr(derivation, outer[0]) if outer else derivation
    source = textwrap.dedent(inspect.getsource(getattr(owner, own)))
    code = source.split('"""')[-1]
    assert code.count(right) == 1
    names = dict(vars(derivation))
    exec(source.replace(code, code.replace(right, wrong)), names)
    monkeypatch.setattr(owner, own, names[own])
    monkeypatch.setattr(equations, "variance_rows", lambda *arguments: [])  # they can't fail, and cost a third
    assert failures(equations.check_derivation(**FEW))


def test_a_program_that_draws_with_the_variance_fails(monkeypatch):
    def with_variance(self, x):
        loc, log_scale = self.network(x).chunk(2, dim=-1)
        return WrongDraws(loc, log_scale.exp()).to_event(1)

    class WrongDraws(dist.Normal):
        def rsample(self, sample_shape=()):
            return self.loc + self.scale.square() * torch.randn(self.shape(sample_shape)).to(self.loc)

    monkeypatch.setattr(DiagonalNormal, "forward", with_variance)
    assert "E_Q[(z - mu)^2 / sigma^2] = 1, z from the Pyro guide" in failures(
        equations.check_derivation(num_gradients=4)
    )


def test_the_variance_rows_say_which_is_smaller(table):
    notes = {row.equation: row.note for row in table if row.verdict == "measured"}
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
    table = equations.check(vae, x, num_draws=500, num_gradients=40)
    assert not failures(table)
    assert [row.equation for row in table if row.verdict == "not applicable"] == [evidence.TIGHT]
    # A wrong sign or a missing term would be seen: the error bars are small beside what is compared.
    figures = {row.equation: row for row in table}
    assert figures[evidence.DEFINITION].standard_error < 0.05
    assert figures[evidence.IDENTITY].standard_error < 0.02 * abs(figures[evidence.IDENTITY].left)
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert names == set(pyro.get_param_store().keys())


def test_the_evidence_is_estimated_as_it_is():
    vae, exact, x = equations.linear_gaussian()
    row = equations.check(vae, x, num_gradients=4)[0]
    assert row.equation == evidence.PRIOR_EXPECTATION
    assert abs(row.left - exact.log_evidence(x).mean().item()) < 4 * row.standard_error
    assert row.standard_error < 0.02


@pytest.fixture(scope="module")
def fitted() -> tuple:
    vae, x = trained()
    vae, x = vae.double(), x.double()
    return vae, x, evidence.fitted_gaussian(vae, x)


@pytest.mark.parametrize(
    ("term", "factor"),
    [("log_q", 1), *((term, factor) for term in densities.Terms._fields for factor in (-1, 0))],
)
def test_a_wrong_sign_or_a_missing_term_is_seen_through_the_error_bars(term, factor, fitted, monkeypatch):
    def terms(vae, x, z):
        right = densities.terms(vae, x, z)
        return right._replace(**{term: factor * getattr(right, term)})

    vae, x, gaussian = fitted
    torch.manual_seed(0)
    monkeypatch.setattr(evidence, "terms", terms)
    monkeypatch.setattr(evidence, "fitted_gaussian", lambda vae, x: gaussian)
    assert bool(failures(evidence.evidence_rows(vae, x, 500))) == (factor != 1)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"prior": GaussianMixture(2, components=3)}, "GaussianMixture"),
        ({"encoder": FullRankNormal(mlp(6, [16], 2 + 3), 2)}, "FullRankNormal is not a diagonal normal"),
        ({"likelihood": Gaussian(scale=0.5)}, "Gaussian is not the article's Bernoulli"),
    ],
)
def test_rows_without_a_closed_form_are_marked(parts, reason):
    table = equations.check(*trained(**parts), num_draws=400, num_gradients=20)
    assert not failures(table)
    assert any(reason in row.note for row in table if row.verdict == "not applicable")
    assert all(row.note for row in table if row.verdict == "not applicable")
    assert {row.equation: row for row in table}[evidence.IDENTITY].verdict == "pass"


def test_a_loss_that_is_no_density_has_no_evidence():
    vae, x = trained(likelihood=Bernoulli(grey=True))
    table = {row.equation: row for row in equations.check(vae, 0.5 * x, **FEW)}
    assert table[evidence.PRIOR_EXPECTATION].verdict == "not applicable"
    assert table["TraceMeanField_ELBO = BCE + KLD, equal noise"].verdict == "pass"


def test_command_line(table, capsys, monkeypatch):
    monkeypatch.setattr(check, "check_derivation", lambda: table)
    check.main(["--json"])
    printed = json.loads(capsys.readouterr().out)
    assert set(printed[0]) == {"equation", "left", "right", "difference", "standard_error", "verdict", "note"}
    check.main([])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["equation", "left", "right", "difference", "standard", "error", "verdict"]
    assert evidence.IDENTITY in "\n".join(lines)
    monkeypatch.setattr(check, "check_derivation", lambda: [dataclasses.replace(table[0], verdict="FAIL")])
    with pytest.raises(SystemExit) as stop:
        check.main([])
    assert stop.value.code == 1


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "pyro_vae", "check", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
