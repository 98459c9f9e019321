"""Anomaly scores: p-values are uniform for normal data, AUROC is exact, and the command says what it did."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

import pyro_vae
from pyro_vae.commands import score as command
from pyro_vae.commands.train import main as train
from pyro_vae.data import load
from pyro_vae.evidence import log_evidence, refined
from pyro_vae.inference import auroc, conformal_p_value, score
from tests.references import data_of, linear_gaussian, shifted_guide


@pytest.mark.parametrize("two_sided", [False, True])
def test_p_values_of_normal_data_are_uniform(two_sided):
    # Groups of n held-out data and one fresh datum each, so that the p-values are independent of each other.
    # The guide is off and K small: the estimates are poor, and the p-values exact all the same.
    exact, n, groups = linear_gaussian(), 39, 2000
    x = data_of(exact, groups * (n + 1))
    guide = shifted_guide(exact, shift=1.0, factor=0.7)
    estimates = log_evidence(exact.model, guide, x, num_samples=2, seed=0).log_evidence.reshape(groups, n + 1)
    assert (estimates.flatten() - exact.log_evidence(x)).std() > 0.2
    p = torch.cat([conformal_p_value(row[:1], row[1:], two_sided=two_sided) for row in estimates])
    # Uniform on 1/40, 2/40 … 1; two-sided on 2/40, 4/40 … 1. Spread within its step, a p-value is uniform on (0, 1).
    steps = (n + 1) // (2 if two_sided else 1)
    counts = torch.bincount((p * steps).round().long(), minlength=steps + 1)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 0.01
    spread = p.numpy() - np.random.default_rng(0).random(groups) / steps
    assert stats.kstest(spread, "uniform").pvalue > 0.01


def test_the_scores_of_fresh_data_are_those_of_held_out_ones():
    # One held-out set for all: then p-values are those of the two-sample test.
    exact = linear_gaussian()
    x, held_out = data_of(exact, 1500, seed=1), data_of(exact, 1500, seed=2)
    scores = score(exact.model, shifted_guide(exact, 0.3), x, held_out=held_out, num_samples=5, seed=0)
    assert stats.ks_2samp(scores.evidence.log_evidence, scores.held_out.log_evidence).pvalue > 0.01
    assert (scores.p_value <= 0.1).double().mean() == pytest.approx(0.1, abs=3 * math.sqrt(2 * 0.09 / 1500))


def test_scores_are_those_of_the_exact_evidence():
    exact = linear_gaussian()
    held_out = data_of(exact, 99)
    x = torch.cat([data_of(exact, 20, seed=1), 5 * data_of(exact, 3, seed=2) + 9])
    scores = score(exact.model, exact.guide, x, held_out=held_out, num_samples=3, seed=0)
    log_p, normal = exact.log_evidence(x), exact.log_evidence(held_out)
    torch.testing.assert_close(scores.evidence.log_evidence, log_p)
    torch.testing.assert_close(scores.held_out.log_evidence, normal)
    p = (1 + (normal <= log_p[:, None]).sum(1)).double() / 100
    torch.testing.assert_close(scores.p_value, p)
    assert torch.equal(scores.p_value[-3:], torch.full((3,), 0.01, dtype=torch.float64))
    assert torch.equal(scores.rank, log_p.argsort().argsort() + 1)
    both_sides = score(exact.model, exact.guide, x, held_out=held_out, two_sided=True, num_samples=3, seed=0)
    high = (1 + (normal >= log_p[:, None]).sum(1)).double() / 100
    torch.testing.assert_close(both_sides.p_value, (2 * torch.minimum(p, high)).clamp(max=1))


def test_equal_scores_count_against_an_anomaly():
    held_out = torch.tensor([1.0, 1.0, 2.0])
    assert conformal_p_value(torch.tensor([0.0, 1.0, 2.0, 3.0]), held_out).tolist() == [0.25, 0.75, 1, 1]
    assert conformal_p_value(torch.tensor([0.0, 1.0, 3.0]), held_out, two_sided=True).tolist() == [0.5, 1, 0.5]


def test_data_of_another_width_are_refused():
    exact = linear_gaussian()
    with pytest.raises(ValueError, match=r"held_out has rows of shape \(5,\), but x of \(6,\)"):
        score(exact.model, exact.guide, data_of(exact, 3), held_out=torch.zeros(9, 5))


def test_auroc():
    generator = torch.Generator().manual_seed(0)
    low, high = (torch.randint(0, 9, (n,), generator=generator) + shift for n, shift in ((60, 0), (90, 2)))
    truth = np.repeat([1, 0], [60, 90])
    area, se = auroc(low, high)
    assert area == pytest.approx(roc_auc_score(truth, -torch.cat([low, high]).numpy()), abs=1e-12)
    assert auroc(torch.tensor([0.0]), torch.tensor([1.0, 2.0])) == (1.0, math.inf)  # and no warning
    # DeLong's variance, straight from its definition.
    psi = (low[:, None] < high).double() + (low[:, None] == high).double() / 2
    assert se == pytest.approx((psi.mean(1).var() / 60 + psi.mean(0).var() / 90).sqrt().item())
    # And the spread over data sets: two normal densities a deviation and a half apart.
    areas, errors = zip(
        *(auroc(*torch.randn(2, 80, generator=generator).add(torch.tensor([[0.0], [1.5]]))) for _ in range(400)),
        strict=True,
    )
    assert np.mean(areas) == pytest.approx(stats.norm.cdf(1.5 / math.sqrt(2)), abs=4 * np.std(areas) / 20)
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=4 / math.sqrt(800))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run, digits to score of which the last ten are upside down, and a file that says so."""
    folder = tmp_path_factory.mktemp("score")
    train(["--epochs", "3", "--hidden_dims", "[16]", "--latent_dim", "2", "--run", str(folder / "run")])
    digits = load("digits", pixels="levels")
    images = digits.test[:40].to(torch.uint8).reshape(-1, 8, 8)
    images[30:] = images[30:].flip(1)
    np.savez(folder / "mixed.npz", x=images.numpy(), y=digits.labels["test"][:40].numpy())
    np.save(folder / "truth.npy", np.arange(40) >= 30)
    return folder / "run"


def call(run, out, *options):
    """Run the command; return its summary and the columns of its table."""
    command.main([str(run), "--num_samples", "30", "--out", str(out), *map(str, options)])
    rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    return json.loads((out / "scores.json").read_text()), columns


@pytest.mark.pictures
def test_the_files_hold_what_the_function_returns(run, tmp_path, capsys):
    folder = run.parent
    summary, columns = call(
        run, tmp_path / "s", "--data", folder / "mixed.npz", "--anomalies", folder / "truth.npy", "--level", "0.1"
    )
    x = pyro_vae.data.read(str(folder / "mixed.npz"), pixels="binarized", levels=17).x
    expected = score(pyro_vae.load(run), x, held_out=load("digits").test, num_samples=30, seed=0)
    np.testing.assert_allclose(columns["log_evidence"], expected.evidence.log_evidence, rtol=1e-6)
    np.testing.assert_allclose(columns["se"], expected.evidence.se, rtol=1e-4)
    np.testing.assert_allclose(columns["p_value"], expected.p_value, rtol=1e-6)
    np.testing.assert_array_equal(columns["rank"], expected.rank)
    np.testing.assert_array_equal(columns["flag"], expected.p_value <= 0.1)
    np.testing.assert_array_equal(columns["anomaly"], np.arange(40) >= 30)
    assert summary["flagged"] == columns["flag"].sum()
    assert (summary["held_out"], summary["num_held_out"], summary["num_examples"]) == ("test", 447, 40)
    by_evidence, log_p = summary["auroc"]["log_evidence"], expected.evidence.log_evidence
    assert tuple(by_evidence.values()) == pytest.approx(auroc(log_p[30:], log_p[:30]))
    assert (tmp_path / "s" / "scores.png").read_bytes().startswith(b"\x89PNG")
    output = capsys.readouterr().out
    assert f"AUROC       {by_evidence['auroc']:.3f} ± {by_evidence['se']:.3f} by log P(X)" in output
    assert "held out    digits: 447 test examples" in output


def test_flags_of_the_runs_own_data(run, tmp_path):
    by_itself, columns = call(run, tmp_path / "a", "--anomalies", "1,8")
    assert (by_itself["split"], by_itself["held_out"]) == ("test", "validation")
    assert by_itself["auroc"]["num_anomalies"] == np.isin(columns["label"], (1, 8)).sum()
    # With the false discovery rate: exactly those that the largest k with p_(k) <= level k / N lets in.
    together, columns = call(run, tmp_path / "b", "--fdr", "--level", "0.9")
    p, count = np.sort(columns["p_value"]), 447
    k = np.flatnonzero(p <= 0.9 * np.arange(1, count + 1) / count * (1 + 1e-7)).max(initial=-1) + 1
    assert together["flagged"] == k == columns["flag"].sum()
    assert together["fdr"]


def test_likelier_than_normal_is_said(run, tmp_path, capsys):
    # The emptier, the likelier.
    images = load("digits", pixels="levels").test.to(torch.uint8).reshape(-1, 8, 8).numpy().copy()
    images[:, :, :3], images[:, :, 5:] = 0, 0
    np.save(tmp_path / "empty.npy", images[:60])
    options = ["--data", tmp_path / "empty.npy", "--level", "0.1"]
    one, columns = call(run, tmp_path / "a", *options)
    output = capsys.readouterr().out
    assert one["probability_above_held_out"]["mean"] > 0.7
    assert "likelier    than a held-out example with probability 0." in output
    assert "--two_sided" in output
    two, more = call(run, tmp_path / "b", *options, "--two_sided", "--proposal", "Defensive")
    assert two["flagged"] == more["flag"].sum() > columns["flag"].sum() == one["flagged"]


def test_a_fitted_proposal_sees_both_kinds_of_data(run, tmp_path):
    options = ["--data", run.parent / "mixed.npz", "--proposal", "Refined", "--proposal.steps", "3"]
    summary, columns = call(run, tmp_path / "s", *options)
    x = pyro_vae.data.read(str(run.parent / "mixed.npz"), pixels="binarized", levels=17).x
    vae, held_out = pyro_vae.load(run), load("digits").test
    proposal = refined(vae.model, vae.guide, torch.cat([held_out, x]), steps=3, seed=1)
    expected = score(vae.model, proposal, x, held_out=held_out, num_samples=30, seed=0)
    np.testing.assert_allclose(columns["log_evidence"], expected.evidence.log_evidence, rtol=1e-6)
    assert summary["proposal"] == "Refined"


def test_data_that_are_all_anomalies_are_compared_with_held_out_ones(run, tmp_path):
    options = ["--data", run.parent / "mixed.npz", "--anomalies", "0,1,2,3,4,5,6,7,8,9", "--max_examples", "12"]
    summary, _ = call(run, tmp_path / "s", *options)
    auroc = summary["auroc"]
    assert (auroc["normal"], auroc["num_anomalies"], auroc["num_normal"]) == ("held out", 12, 447)


def test_bad_input_is_refused(run, tmp_path, capsys):
    np.save(tmp_path / "twos.npy", np.full(447, 2))
    np.save(tmp_path / "few.npy", np.zeros(3))
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    before = set(tmp_path.rglob("*"))
    for options, said in (
        (["--level", "2"], "--level must be between 0 and 1"),
        (["--num_samples", "0"], "num_samples must be a whole number of at least 1"),
        (["--against", "test"], "the very examples to score"),
        (["--anomalies", "11"], "none of the 447 examples is one"),
        (["--anomalies", tmp_path / "twos.npy"], "expected 0 or 1 for each of the 447 examples"),
        (["--anomalies", tmp_path / "few.npy"], "it holds 3 values"),
        (["--anomalies", tmp_path / "objects.npy"], "expected a .npy file of numbers"),
        (["--anomalies", tmp_path / "nowhere.npy"], "doesn't exist"),
        (["--out", tmp_path / "full"], "holds other files, and no results of score"),
        (["--data", tmp_path / "nowhere.npz"], "no such file"),
    ):
        with pytest.raises(SystemExit) as exit:
            command.main([str(run), "--out", str(tmp_path / "out"), *map(str, options)])
        assert exit.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert said in lines[0]
    assert set(tmp_path.rglob("*")) == before
