"""Blanks are filled from p(x_missing | x_observed): exactly so on linear-Gaussian models."""

import csv
import math
import re
import sys

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae import build
from pyro_vae.commands.impute import main
from pyro_vae.evidence import LinearGaussian, log_weights, prior
from pyro_vae.inference import gibbs, impute, log_prob_missing
from pyro_vae.inference.blanks import mixture, pseudo_gibbs, with_blanks
from pyro_vae.networks import mlp
from pyro_vae.runs.checkpoint import save

D, Z = 5, 2


def linear_vae(encoder="exact"):
    """A linear-Gaussian VAE in float64 with its closed forms, and the exact posterior or another one as encoder."""
    torch.manual_seed(0)
    options = {"scale": 0.7}
    vae = build((D,), likelihood={"class_path": "Gaussian", "init_args": options}, latent_dim=Z, hidden_dims=[])
    vae.double()
    weight, bias = vae.decoder[0].weight, vae.decoder[0].bias
    weight.data.normal_()
    exact = LinearGaussian(weight.detach(), bias.detach(), scale=torch.full((D,), 0.7, dtype=torch.float64))
    layer = vae.encoder.network = mlp(D, [], 2 * Z)[0].double()
    posterior = exact.posterior(torch.zeros(1, D, dtype=torch.float64))
    gain = exact.posterior(torch.eye(D, dtype=torch.float64) + exact.bias).mean.T  # (Z, D)
    layer.weight.data = torch.cat([gain, torch.zeros_like(gain)])
    layer.bias.data = torch.cat([posterior.mean[0], posterior.stddev[0].log()])
    if encoder == "poor":  # off by half a deviation, and too wide
        layer.bias.data += torch.cat([0.5 * posterior.stddev[0], torch.full((Z,), 0.2, dtype=torch.float64)])
    return vae.eval(), exact


def conditional(exact, x):
    """The mean and the covariance of one datum's blanks given the rest, in closed form."""
    covariance = exact.weight @ exact.weight.T + exact.scale.square().diag()
    b, o = x.isnan(), ~x.isnan()
    gain = covariance[b][:, o] @ torch.linalg.inv(covariance[o][:, o])
    return exact.bias[b] + gain @ (x[o] - exact.bias[o]), covariance[b][:, b] - gain @ covariance[o][:, b]


def blanked():
    x = torch.tensor([[0.5, -1.0, 2.0, 0.3, 1.0], [-0.4, 0.2, 0.1, 1.5, -2.0]], dtype=torch.float64)
    truth = x.clone()
    x[0, [0, 3]] = torch.nan
    x[1, [1, 4]] = torch.nan
    return x, truth


def misfit(completions, exact, x):
    """The largest deviation of means and covariances from the exact ones, in standard errors of M independent draws."""
    worst = []
    for b in range(len(x)):
        mean, covariance = conditional(exact, x[b])
        drawn = completions[:, b][:, x[b].isnan()]
        num, variance = len(drawn), covariance.diagonal()
        worst.append(((drawn.mean(0) - mean) / (variance / num).sqrt()).abs().max())
        se = ((covariance.square() + variance[:, None] * variance) / num).sqrt()  # of a Gaussian sample covariance
        worst.append(((drawn.T.cov() - covariance) / se).abs().max())
    return max(worst).item()


METHODS = {
    "importance": lambda vae, x: impute(
        vae, x, num_completions=2000, num_samples=8000, num_starts=2, steps=100, seed=1
    ),
    # One completion of each chain, so that they are independent.
    "gibbs": lambda vae, x: gibbs(vae, x, num_completions=800, num_chains=800, num_steps=10, warmup=40, seed=1),
}


@pytest.mark.parametrize("encoder", ["exact", "poor"])
@pytest.mark.parametrize("method", METHODS)
def test_completions_have_the_exact_conditional_mean_and_covariance(method, encoder):
    vae, exact = linear_vae(encoder)
    x, _ = blanked()
    filled = METHODS[method](vae, x)
    # 2 data of 2 blanks each: the largest deviation of 4 means and 6 variances and covariances.
    assert misfit(filled.completions, exact, x) < 3
    for b in range(2):
        mean, covariance = conditional(exact, x[b])
        blank = x[b].isnan()
        assert torch.allclose(filled.mean[b, blank], mean, atol=0.1)
        assert torch.allclose(filled.sd[b, blank], covariance.diagonal().sqrt(), rtol=0.1)
        assert torch.equal(filled.mean[b, ~blank], x[b, ~blank])
        assert (filled.completions[:, b, ~blank] == x[b, ~blank]).all()
        assert (filled.sd[b, ~blank] == 0).all()
    if method == "gibbs":
        assert (filled.acceptance > 0.3).all()


def test_the_weights_make_up_for_a_proposal_that_was_not_fitted(monkeypatch):
    monkeypatch.setattr(sys.modules["pyro_vae.inference.impute"], "fitted", lambda model, *_, **__: prior(model))
    vae, exact = linear_vae()
    x, _ = blanked()
    filled = impute(vae, x, num_completions=400, num_samples=40_000, seed=1)
    assert filled.evidence.ess.max() < 8_000
    assert misfit(filled.completions, exact, x) < 3


def test_the_check_can_tell_pseudo_gibbs_from_the_exact_conditional():
    vae, exact = linear_vae("poor")
    x, _ = blanked()
    with torch.no_grad():
        filled = pseudo_gibbs(with_blanks(vae.model), vae.guide, x.repeat(800, 1), rounds=30)
    assert misfit(filled.unflatten(0, (800, 2)), exact, x) > 5


def test_log_prob_missing_is_the_exact_conditional_density():
    vae, exact = linear_vae("poor")
    x, truth = blanked()
    score = log_prob_missing(vae, x, truth, num_samples=4000, num_starts=2, steps=60, seed=2)
    for b in range(2):
        mean, covariance = conditional(exact, x[b])
        expected = dist.MultivariateNormal(mean, covariance).log_prob(truth[b, x[b].isnan()])
        assert abs(score.log_prob[b] - expected) < 4 * score.se[b]
        assert score.se[b] < 0.05
    again = log_prob_missing(vae, x, truth, observed=score.observed, num_samples=4000, steps=60, seed=2)
    assert torch.equal(again.log_prob, score.log_prob)


def test_evidence_is_that_of_the_observed_part():
    vae, exact = linear_vae()
    x, _ = blanked()
    evidence = impute(vae, x, num_samples=2000, num_starts=1, steps=60, seed=1).evidence
    for b in range(2):
        o = ~x[b].isnan()
        part = LinearGaussian(exact.weight[o], exact.bias[o], scale=exact.scale[o])
        assert abs(evidence.log_evidence[b] - part.log_evidence(x[b : b + 1, o])) < 4 * evidence.se[b] + 1e-3


def two_modes(x):
    """x_1 = z^2 and x_2 = z, with noise: without x_2, the sign of z is open."""
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1).to_event(1))
        fn = dist.Normal(torch.cat([z.square(), z], -1), 0.1).mask(~x.isnan()).to_event(1)
        return pyro.sample("x", fn, obs=x.nan_to_num())


two_modes.missing = True


def centred(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(x[:, 1:], 0.3).to_event(1))


def test_a_program_of_ones_own_and_both_modes_of_its_posterior():
    x = torch.stack([torch.linspace(1.8, 2.2, 8), torch.full((8,), torch.nan)], 1)
    one = impute(two_modes, centred, x, num_starts=1, steps=50, num_samples=400, seed=0)
    several = impute(two_modes, centred, x, num_starts=5, steps=50, num_samples=400, num_completions=40, seed=0)
    right = (several.completions[:, :, 1] > 0).double().mean(0)  # of each datum's completions
    assert ((right > 0) & (right < 1)).double().mean() > 0.8  # all starts on one side: 1 in 16
    assert several.completions[:, :, 1].abs().sub(math.sqrt(2)).abs().max() < 0.7
    # The two modes hold equal shares of P(x_observed): a proposal on one of them sees half.
    lost = several.evidence.log_evidence.median() - one.evidence.log_evidence.median()
    assert abs(lost - math.log(2)) < 0.1


def test_a_mixture_is_scored_as_one():
    vae, exact = linear_vae()
    truth = blanked()[1]

    def shifted(by):
        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.MultivariateNormal(exact.posterior(x).mean + by, scale_tril=exact.posterior_tril))

        return guide

    same = log_weights(vae.model, mixture([exact.guide, exact.guide]), truth, num_samples=10, seed=0)
    assert torch.allclose(same, exact.log_evidence(truth).expand(10, -1))
    weights = log_weights(vae.model, mixture([shifted(0.6), shifted(-0.6)]), truth, num_samples=20_000, seed=0)
    relative = (weights - exact.log_evidence(truth)).exp()
    assert ((relative.mean(0) - 1).abs() < 4 * relative.std(0) / math.sqrt(20_000)).all()


@pytest.mark.parametrize("method", [impute, gibbs], ids=["importance", "gibbs"])
def test_seeds_blocks_and_the_global_state(method, monkeypatch):
    vae, _ = linear_vae()
    x, _ = blanked()
    options = {"num_steps": 20} if method is gibbs else {"num_samples": 50, "steps": 5}
    vae.train()
    state = torch.random.get_rng_state()
    first, second = (method(vae, x, **options, seed=3) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert vae.training
    assert not vae.missing
    assert torch.equal(first.completions, second.completions)
    assert first.completions.dtype == torch.float64
    # In small blocks: other draws, the same shapes.
    monkeypatch.setattr(sys.modules["pyro_vae.inference.impute"], "_BLOCK", 1)
    monkeypatch.setattr(sys.modules["pyro_vae.inference.gibbs"], "default_chunk_size", lambda *_: 4)
    blocks = method(vae, x.repeat(2, 1), **options, seed=3)
    assert blocks.completions.shape == (5, 4, D)
    assert not blocks.completions.isnan().any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae, x: impute(vae, x * torch.inf), "not finite"),
        (lambda vae, x: impute(lambda x: None, lambda x: None, x), "attribute missing = True"),
        (lambda vae, x: impute(vae, x[0]), r"a row for each datum, \(N, D\)"),
        (lambda vae, x: impute(vae, x, num_completions=0), "num_completions"),
        (lambda vae, x: gibbs(vae, x, num_steps=1), "num_steps must be at least 2"),
        (lambda vae, x: gibbs(vae, x, num_steps=2, num_completions=9), "at most the 8 steps"),
        (lambda vae, x: log_prob_missing(vae, x, x), "truth must know some of the blanks"),
        (lambda vae, x: log_prob_missing(vae, x, x.nan_to_num(0) + 1), "2 rows, the first of them 0"),
        (lambda vae, x: log_prob_missing(vae, x, x[:1].nan_to_num(0)), "shape of x"),
    ],
)
def test_refusals(call, message):
    vae, _ = linear_vae()
    with pytest.raises(ValueError, match=message):
        call(vae, blanked()[0])


# The command.


def rows_of(path):
    return list(csv.reader(path.read_text().splitlines()))


def columns_of(path):
    first, *rows = rows_of(path)
    return [dict(zip(first, row, strict=True)) for row in rows]


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("digits"), [])


@pytest.fixture(scope="module")
def table_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    generator = np.random.default_rng(0)
    z = generator.normal(size=(200, 1))
    table = np.concatenate([z + 0.1 * generator.normal(size=(200, 2)), z > 0], 1)
    np.savetxt(folder / "all.csv", table, delimiter=",", header="a,b,positive", comments="", fmt="%.4f")
    groups = "[[2, Gaussian], [1, Bernoulli]]"
    options = ["--data", str(folder / "all.csv"), "--pixels", "raw", "--latent_dim", "1", "--hidden_dims", "[]"]
    return trained(folder, [*options, "--likelihood", "Columns", "--likelihood.groups", groups])


def trained(folder, options):
    from pyro_vae.commands.train import main

    main(["--run", str(folder / "run"), "--epochs", "10", "--batch_size", "50", "--lr", "0.01", *options])
    return folder / "run"


QUICK = ["--num_samples", "100", "--steps", "20", "--num_starts", "2"]


@pytest.mark.pictures
def test_a_table_comes_back_as_it_was_but_for_its_blanks(table_run, tmp_path, capsys):
    text = 'a,b,positive\n1.50,,1\n-0.70,-0.8,0\n"-2.0",-2.10,\n\n,, \n0.1,NA,nan\n'
    (tmp_path / "blanks.csv").write_text(text)
    main([str(table_run), "--data", str(tmp_path / "blanks.csv"), "--num_completions", "3", *QUICK])
    out = table_run / "impute"
    assert "4 of 5 examples have blanks" in capsys.readouterr().out
    rows = [rows_of(out / f"completed-{m}.csv") for m in (1, 2, 3)]
    for table in rows:
        assert table[0] == ["a", "b", "positive"]
        assert [row[0] for row in table[1:4]] == ["1.50", "-0.70", "-2.0"]
        assert table[2] == ["-0.70", "-0.8", "0"]
        assert len(table) == 6
        assert {row[2] for row in table[1:]} <= {"0", "1"}
        assert all(math.isfinite(float(cell)) for row in table[1:] for cell in row)
    assert rows[0][1][1] != rows[1][1][1]
    mean = rows_of(out / "mean.csv")
    assert 0 < float(mean[3][2]) < 1  # a probability
    stored = np.load(out / "completed.npz")
    assert stored["completions"].shape == (3, 4, 3)
    assert stored["rows"].tolist() == [0, 2, 3, 4]
    diagnostics = columns_of(out / "diagnostics.csv")
    assert [row["blanks"] for row in diagnostics] == ["1", "1", "3", "2"]
    assert float(diagnostics[2]["log_p_observed"]) == pytest.approx(0, abs=0.05)  # nothing was observed
    assert (out / "completed.png").exists()


@pytest.mark.pictures
def test_hidden_cells_of_the_runs_own_table_are_scored_by_column(table_run, tmp_path, capsys):
    main([str(table_run), "--hide", "0.5", "--out", str(tmp_path / "out"), *QUICK])
    output = capsys.readouterr()
    truth = output.out.split("truth ")[1]
    assert output.err == ""  # the picture was drawn
    assert re.search(r"root mean square error of each column .*\n +a [\d.]+ \([\d.]+\), b .*, positive ", truth)


def test_hidden_pixels_are_filled_and_scored(digits_run, tmp_path, capsys):
    options = ["--max_examples", "20", "--num_completions", "2", *QUICK]
    main([str(digits_run), "--hide", "right", "--out", str(tmp_path / "out"), *options])
    words = capsys.readouterr().out
    assert "640 of them, 50.0 %" in words.replace("50.0%", "50.0 %")
    assert "means are probabilities" in words
    assert "log P(x_missing|x_observed) -" in words
    stored = np.load(tmp_path / "out" / "completed.npz")
    assert stored["completions"].shape == (2, 20, 8, 8)
    assert stored["observed"][:, :, :4].all()
    assert not stored["observed"][:, :, 4:].any()
    assert set(np.unique(stored["completions"])) == {0, 1}
    assert (stored["completions"][0, :, :, :4] == stored["completions"][1, :, :, :4]).all()
    scores = columns_of(tmp_path / "out" / "diagnostics.csv")
    assert all(float(row["log_p_missing"]) < 0 and 0 < float(row["squared_error"]) < 0.5 for row in scores)


def test_a_mask_and_the_truth_from_files_by_gibbs(digits_run, tmp_path, capsys):
    generator = np.random.default_rng(0)
    levels = generator.integers(0, 17, (6, 8, 8))
    mask = np.zeros((8, 8), dtype=bool)
    mask[:4] = True
    np.save(tmp_path / "x.npy", np.where(mask, 0, levels))
    np.save(tmp_path / "truth.npy", levels)
    np.save(tmp_path / "mask.npy", mask)
    files = [f"--{name}={tmp_path / name}.npy" for name in ("mask", "truth")]
    options = ["--method", "gibbs", "--num_steps", "10", *QUICK, "--out", str(tmp_path / "out")]
    main([str(digits_run), "--data", str(tmp_path / "x.npy"), *files, *options])
    assert "R-hat" in capsys.readouterr().out
    scores = columns_of(tmp_path / "out" / "diagnostics.csv")
    assert len(scores) == 6
    assert {"acceptance", "rhat", "log_p_missing"} <= scores[0].keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected blanks.*--mask.*--hide"),
        (["--hide", "1.5"], "--hide: expected a fraction"),
        (["--hide", "middle"], "one of left, right, top, bottom"),
        (["--hide", "0.5", "--truth", "x.npy"], "leave out --truth"),
        (["--hide", "0.5", "--mask", "x.npy"], "leave one out"),
        (["--num_steps", "10"], "--num_steps belongs to --method gibbs"),
        (["--hide", "0.5", "--num_chains", "2"], "--num_chains belongs to --method gibbs"),
        (["--hide", "left", "--num_samples", "0"], "num_samples must be"),
        (["--data", "digits", "--split", "test"], "leave it out with --data"),
        (["--mask", "mask.csv"], "1 where a value is blank"),
        (["--mask", "narrow.csv"], "but it holds 1 rows of 2"),
        (["--data", "narrow.csv"], "64|8x8"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(options, message, digits_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mask.csv").write_text(",".join(["0.5"] * 64) + "\n")
    (tmp_path / "narrow.csv").write_text("0,1\n")
    with pytest.raises(SystemExit) as stopped:
        main([str(digits_run), *options, "--out", "out"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


def test_earlier_results_stay_unless_they_may_go(digits_run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit):
        main([str(digits_run), "--hide", "0.5", "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_dequantized_pixels_come_back_as_levels(tmp_path):
    vae = build((1, 4, 4), likelihood="Gaussian", pixels="dequantized", levels=17, latent_dim=2, hidden_dims=[8])
    save(vae, tmp_path)
    levels = np.random.default_rng(0).integers(0, 17, (5, 4, 4)).astype(np.float32)
    levels[:, :2] = np.nan
    np.save(tmp_path / "x.npy", levels)
    main([str(tmp_path), "--data", str(tmp_path / "x.npy"), "--out", str(tmp_path / "out"), *QUICK])
    stored = np.load(tmp_path / "out" / "completed.npz")
    assert np.array_equal(stored["mean"][:, 2:], levels[:, 2:])
    assert np.array_equal(stored["completions"], stored["completions"].round())
    assert stored["completions"].max() <= 16
