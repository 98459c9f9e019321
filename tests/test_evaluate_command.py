"""The evaluate command: what it writes, what its figures are, and what it refuses."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import torch

import pyro_vae
from pyro_vae.commands import evaluate
from pyro_vae.commands.train import main as train
from pyro_vae.data import load, read
from pyro_vae.evidence import ais, defensive, laplace, log_evidence, quasi_random, refined, widened
from pyro_vae.likelihoods.bits import bits_per_dimension
from pyro_vae.machine.files import write_file
from pyro_vae.runs.opening import run_data

QUICK = ["--epochs", "3", "--hidden_dims", "[16]", "--latent_dim", "2"]
FEW = ["--num_samples", "40", "--max_examples", "30"]


def trained(folder, *options):
    train([*QUICK, *options, "--run", str(folder)])
    return folder


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy, so that each test begins with a folder without an evaluation."""
    return shutil.copytree(trained_run, tmp_path / "run")


def summary_of(run, name="evaluation"):
    return json.loads((run / f"{name}.json").read_text())


def rows_of(run, name="evaluation"):
    rows = list(csv.DictReader((run / f"{name}.csv").read_text().splitlines()))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def refused(capsys, run, *arguments):
    """Run a command that must fail; return its one line."""
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} if run.exists() else {}
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        evaluate.main([str(run), *map(str, arguments)])
    assert exit.value.code == 2
    output = capsys.readouterr()
    lines = output.err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert ({p: p.read_bytes() for p in run.rglob("*") if p.is_file()} if run.exists() else {}) == before
    return lines[0]


@pytest.mark.pictures
def test_the_files_hold_what_the_estimator_returns(run, capsys):
    evaluate.main([str(run), "--num_samples", "50"])
    vae, test = pyro_vae.load(run), load("digits")
    expected = log_evidence(vae, test.test, num_samples=50, seed=0)
    summary, rows = summary_of(run), rows_of(run)
    np.testing.assert_allclose(rows["log_evidence"], expected.log_evidence, rtol=1e-6)
    np.testing.assert_allclose(rows["khat"], expected.khat, rtol=1e-5)
    np.testing.assert_allclose(rows["gap"], expected.gap, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(rows["label"], test.labels["test"])
    np.testing.assert_array_equal(rows["index"], np.arange(447))
    assert summary["log_evidence"] == pytest.approx(expected.mean)
    assert summary["log_evidence_se"] == pytest.approx(expected.mean_se)
    assert summary["log_evidence_mc_se"] == pytest.approx(expected.mean_mc_se)
    assert summary["elbo"] == pytest.approx(expected.elbo.mean().item())
    assert summary["elbo_se"] == pytest.approx(expected.elbo.std().item() / math.sqrt(447))
    assert summary["ess"] == pytest.approx({"median": expected.ess.median().item(), "min": expected.ess.min().item()})
    assert summary["khat"]["max"] == pytest.approx(expected.khat.max().item())
    assert summary["khat"]["fraction_above_threshold"] == pytest.approx((~expected.reliable).double().mean().item())
    assert summary["split"] == "test"
    assert (summary["num_examples"], summary["num_samples"], summary["seed"]) == (447, 50, 0)
    assert summary["estimator"] == "importance"
    assert summary["units"] == "nats per example"
    assert "K = 50" in summary["protocol"]
    assert "bits_per_dimension" not in summary  # zeros and ones are no grey levels
    assert (run / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    output = capsys.readouterr().out
    assert f"{expected.mean:.2f} ± {expected.mean_se:.2f} nats per example" in output
    assert "KL[q(z|x) ‖ p(z|x)]" in output


@pytest.mark.filterwarnings("ignore")  # ArviZ is behind its dependencies' deprecations
def test_the_arviz_file(run):
    arviz = pytest.importorskip("arviz")
    evaluate.main([str(run), *FEW])
    draws = arviz.from_netcdf(run / "evaluation.nc")
    assert dict(draws["posterior"]["z"].sizes) == {"chain": 1, "draw": 100, "data": 24, "z_dim_0": 2}
    np.testing.assert_array_equal(draws["observed_data"]["x"], load("digits").test[:24])
    assert (run / "evaluation.nc").stat().st_size < 2**20


def test_an_evaluation_is_not_overwritten_unless_asked(run, capsys):
    evaluate.main([str(run), *FEW])
    assert "--overwrite" in refused(capsys, run, *FEW)
    evaluate.main([str(run), *FEW, "--seed", "1", "--overwrite"])
    assert summary_of(run)["seed"] == 1
    evaluate.main([str(run), *FEW, "--split", "validation", "--name", "v"])
    assert summary_of(run, "evaluation-v")["split"] == "validation"
    assert summary_of(run)["split"] == "test"


@pytest.mark.parametrize(
    ("options", "make"),
    [
        (["Widened"], lambda vae, x: widened(vae.guide, 1.2)),
        (["Defensive", "--proposal.fraction", "0.3"], lambda vae, x: defensive(vae.model, vae.guide, 0.3)),
        (
            ["Refined", "--proposal.steps", "20", "--proposal.full_rank", "true"],
            lambda vae, x: refined(
                vae.model, laplace(vae.model, vae.guide, x, seed=2), x, steps=20, full_rank=True, seed=1
            ),
        ),
        (
            ["Laplace", "--proposal.steps", "20", "--quasi_random"],
            lambda vae, x: quasi_random(laplace(vae.model, vae.guide, x, steps=20, seed=1)),
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_proposals(run, options, make):
    evaluate.main([str(run), "--max_examples", "20", "--num_samples", "60", "--proposal", *options])
    vae, x = pyro_vae.load(run), load("digits").test[:20]
    expected = log_evidence(vae.model, make(vae, x), x, num_samples=60, seed=0)
    summary, rows = summary_of(run), rows_of(run)
    np.testing.assert_allclose(rows["log_evidence"], expected.log_evidence, rtol=1e-6)
    assert summary["proposal"] == options[0]
    assert f"drawn from the {options[0]} proposal" in summary["protocol"]
    assert summary["proposal_elbo"] == pytest.approx(expected.elbo.mean().item())
    # The ELBO is the encoder's, whatever was sampled from.
    encoder = log_evidence(vae, x, num_samples=100, seed=0)
    np.testing.assert_allclose(rows["elbo"], encoder.elbo, rtol=1e-6)


OWN = """
from pyro_vae.evidence import Proposal, widened


class Narrow(Proposal):
    def __init__(self, factor: float):
        self.factor = factor

    def __call__(self, model, guide, x, **how):
        assert how["seed"] == 1  # not the estimate's
        return widened(guide, self.factor)
"""


def test_a_proposal_of_the_users_own(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "myproposal.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ["--max_examples", "20", "--num_samples", "60", "--proposal", "myproposal.Narrow"]
    assert "factor" in refused(capsys, run, *options)
    evaluate.main([str(run), *options, "--proposal.factor", "0.9"])
    vae, x = pyro_vae.load(run), load("digits").test[:20]
    expected = log_evidence(vae.model, widened(vae.guide, 0.9), x, num_samples=60, seed=0)
    np.testing.assert_allclose(rows_of(run)["log_evidence"], expected.log_evidence, rtol=1e-6)
    assert (summary_of(run)["proposal"], summary_of(run)["factor"]) == ("Narrow", 0.9)


def test_a_target_is_reached_by_drawing_more(run, capsys):
    evaluate.main([str(run), "--max_examples", "40", "--num_samples", "50", "--target_se", "0.05"])
    summary, rows = summary_of(run), rows_of(run)
    assert rows["num_samples"].min() == 50 < rows["num_samples"].max() == summary["max_num_samples"]
    assert (rows["se"][rows["num_samples"] < 3200] <= 0.05).all()
    assert summary["failed"] == np.flatnonzero(rows["se"] > 0.05).tolist()
    assert "\ntarget " in capsys.readouterr().out


def test_annealed_importance_sampling(run, capsys):
    options = ["--num_temperatures", "30", "--num_chains", "6", "--num_leapfrog", "2", "--max_examples", "5"]
    evaluate.main([str(run), "--estimator", "ais", *options])
    vae, x = pyro_vae.load(run), load("digits").test[:5]
    expected = ais(vae.model, x, num_temperatures=30, num_chains=6, num_leapfrog=2, seed=0)
    np.testing.assert_allclose(rows_of(run)["log_evidence"], expected.log_evidence, rtol=1e-6)
    summary = summary_of(run)
    assert (summary["num_samples"], summary["num_temperatures"]) == (6, 30)
    assert summary["khat"]["max"] is None  # six weights have no tail
    assert "4.5 thousand gradients" in capsys.readouterr().out  # 5 (4 + 6) 30 (2 + 1)


def test_bidirectional_bounds(run):
    options = ["--num_temperatures", "50", "--num_chains", "4", "--num_leapfrog", "3", "--max_examples", "10"]
    evaluate.main([str(run), "--estimator", "bidirectional", *options])
    summary, rows = summary_of(run), rows_of(run)
    assert summary["split"] == "simulated"
    assert summary["upper_bound"]["mean"] == pytest.approx(rows["upper_bound"].mean(), rel=1e-6)
    gap = summary["bounds_gap"]
    assert gap["mean"] == pytest.approx(summary["upper_bound"]["mean"] - summary["log_evidence"], rel=1e-6)
    assert -3 * gap["se"] < gap["mean"] < 1


def test_a_file_of_the_users_own(run, tmp_path, capsys):
    evaluate.main([str(run), "--num_samples", "40"])
    digits = load("digits", pixels="levels").test[:20].to(torch.uint8)
    strange = torch.randint(0, 17, (2, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mixed = torch.cat([digits[:7], strange, digits[7:]]).reshape(-1, 8, 8).numpy()
    np.save(tmp_path / "mixed.npy", mixed)
    capsys.readouterr()
    evaluate.main([str(run), "--data", str(tmp_path / "mixed.npy"), "--num_samples", "40"])
    rows, summary = rows_of(run, "evaluation-mixed"), summary_of(run, "evaluation-mixed")
    assert set(rows["rank"][7:9]) == {1, 2}
    np.testing.assert_array_equal(np.argsort(rows["log_evidence"]), np.argsort(rows["rank"]))
    lowest = np.quantile(rows_of(run)["log_evidence"], 0.01)
    assert summary["reference"]["log_evidence"] == pytest.approx(lowest, rel=1e-6)
    np.testing.assert_array_equal(rows["unlikely"], rows["log_evidence"] < lowest)
    assert summary["reference"]["num_below"] == rows["unlikely"].sum() >= 2
    assert "the least likely are index" in capsys.readouterr().out
    assert summary_of(run)["data"] == "digits"  # the run's own evaluation is still there


def test_without_an_earlier_evaluation_there_is_nothing_to_compare_with(run, tmp_path, capsys):
    np.save(tmp_path / "few.npy", load("digits").test[:3].numpy())
    evaluate.main([str(run), "--data", str(tmp_path / "few.npy"), "--num_samples", "40"])
    assert summary_of(run, "evaluation-few")["reference"] is None
    assert "unlikely" not in rows_of(run, "evaluation-few")
    assert "evaluate the run's test examples first" in capsys.readouterr().out


def test_zeros_and_ones_are_not_binarized_again(tmp_path):
    x = load("digits").test[:50]
    np.save(tmp_path / "binary.npy", x.numpy())
    assert torch.equal(read(str(tmp_path / "binary.npy"), pixels="binarized", levels=17).x, x)
    grey = load("digits", pixels="levels").test
    np.save(tmp_path / "grey.npy", grey.numpy())
    # All of the test set, in its order: the very noise that the test set was binarized with.
    assert torch.equal(read(str(tmp_path / "grey.npy"), pixels="binarized", levels=17).x, load("digits").test)


def test_bits_per_dimension_of_grey_levels(tmp_path):
    run = trained(tmp_path / "levels", "--likelihood", "DiscretizedLogistic")
    evaluate.main([str(run), *FEW])
    summary = summary_of(run)
    assert summary["bits_per_dimension"]["mean"] == pytest.approx(bits_per_dimension(summary["log_evidence"], 64))


def test_a_run_has_its_own_data_again(run):
    assert torch.equal(run_data(run).test, load("digits").test)
    assert run_data(run).pixels == "binarized"


def test_a_single_example(run):
    evaluate.main([str(run), "--max_examples", "1", "--num_samples", "1"])
    summary = summary_of(run)
    assert summary["log_evidence_se"] is None
    assert summary["khat"]["median"] is None
    assert math.isfinite(summary["log_evidence"])


def test_options_that_would_have_no_effect_are_refused(run, capsys):
    for arguments, said in (
        (["--num_samples", "0"], "num_samples must be a whole number of at least 1, got 0"),
        (["--max_examples", "0"], "max_examples"),
        (["--target_se", "-1"], "target_se must be above 0"),
        (["--max_num_samples", "10"], "--target_se"),
        (["--num_chains", "3"], "num_chains belongs to --estimator ais or bidirectional, not importance"),
        (["--num_samples", "1000", "--estimator", "ais"], "num_samples belongs to --estimator importance, not ais"),
        (["--estimator", "ais", "--proposal", "Refined"], "proposal belongs to --estimator importance, not ais"),
        (["--proposal", "Widened", "--proposal.steps", "2"], "no option steps"),
        (["--proposal.steps", "2"], "proposal: name a class before its option steps (see"),
        (["--proposal", "Nope"], "part of this package, or module.Class, got Nope"),
        (["--proposal", "mymodule.Nope"], "no module mymodule"),
        (["--proposal", "pyro_vae.priors.StudentT"], "proposal"),
        (["--estimator", "bidirectional", "--split", "test"], "simulates"),
        (["--data", "x.npy", "--split", "test"], "split is of the run's own data"),
        (["--name", "a/b"], "without a folder"),
        (["--device", "quantum"], "device"),
        (["--proposal", "Widened", "--proposal.factor", "0"], "factor must be positive"),
        (["--proposal", "Refined", "--proposal.steps", "0"], "steps must be a whole number"),
        (["--estimator", "magic"], "importance"),
        (["--target_se", "0.1", "--num_samples", "100", "--max_num_samples", "10"], "max_num_samples"),
    ):
        assert said in refused(capsys, run, *arguments)


def test_data_that_have_no_density_here_are_refused(run, tmp_path, capsys):
    def saved(array):
        np.save(tmp_path / "x.npy", array)
        return ["--data", tmp_path / "x.npy"]

    ones = np.ones((3, 64), np.float32)
    assert "32 columns, but the run was trained on 8x8 pixels" in refused(capsys, run, *saved(ones[:, :32]))
    assert "blank (NaN)" in refused(capsys, run, *saved(ones * np.nan))
    assert "0 to 16" in refused(capsys, run, *saved(ones * 300))
    assert "no such file" in refused(capsys, run, "--data", tmp_path / "nowhere.npy")
    np.save(tmp_path / "binary.npy", load("digits").test.numpy())
    raw = trained(tmp_path / "raw", "--data", str(tmp_path / "binary.npy"), "--pixels", "raw")
    line = refused(capsys, raw, *saved(3 * ones))
    assert "Bernoulli takes zeros and ones" in line
    assert "the data are whole numbers" in line


def test_a_grey_run_is_no_density(tmp_path, capsys):
    grey = trained(tmp_path / "grey", "--pixels", "grey")
    line = refused(capsys, grey)
    assert "not a density" in line
    assert "ContinuousBernoulli" in line


def test_a_folder_without_a_model_is_refused(run, tmp_path, capsys):
    assert "doesn't exist" in refused(capsys, tmp_path / "nowhere")
    (run / "model.safetensors").unlink()
    assert "model.safetensors" in refused(capsys, run)
    write_file(run / "model.safetensors", b"nonsense")
    assert "truncated" in refused(capsys, run)


def test_a_run_without_a_configuration_is_refused(run, capsys):
    (run / "config.yaml").unlink()
    assert "config.yaml" in refused(capsys, run)


def test_an_interrupted_evaluation_writes_nothing(run, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "evaluate", interrupt)
    with pytest.raises(SystemExit) as exit:
        evaluate.main([str(run), *FEW])
    assert exit.value.code == 130
    assert "nothing was written" in capsys.readouterr().out
    assert not list(run.glob("evaluation*"))


@pytest.mark.filterwarnings("ignore")  # ArviZ is behind its dependencies' deprecations
@pytest.mark.parametrize(("fails", "lost"), [("to_netcdf", "evaluation.nc"), ("draw", "evaluation.png")])
def test_what_is_beside_the_figures_may_fail(run, monkeypatch, capsys, fails, lost):
    evaluate.main([str(run), *FEW])
    figures = (run / "evaluation.csv").read_bytes()

    def fail(*arguments):
        raise TypeError("got an unexpected\nkeyword argument")

    monkeypatch.setattr(evaluate, fails, fail)
    evaluate.main([str(run), *FEW, "--overwrite"])
    assert (run / "evaluation.csv").read_bytes() == figures
    assert math.isfinite(summary_of(run)["log_evidence"])
    written = {path.name for path in run.glob("evaluation.*")}  # an earlier one would show other figures
    assert written == {f"evaluation.{kind}" for kind in ("csv", "json", "nc", "png")} - {lost}
    output = capsys.readouterr()
    assert f"warning: {lost} could not be written (TypeError: got an unexpected keyword argument)" in output.err
    assert lost.removeprefix("evaluation") not in output.out.splitlines()[-1]


def test_how_many_examples_arviz_gets_is_said_and_can_be_set(run, capsys):
    import arviz

    for options, count in (([], 24), (["--num_exported", "5"], 5), (["--num_exported", "999"], 30)):
        evaluate.main([str(run), *FEW, "--overwrite", *options])
        output = capsys.readouterr().out
        assert f"the first {count} of 30 examples to evaluation.nc" in output
        assert arviz.from_netcdf(str(run / "evaluation.nc"))["posterior"]["z"].sizes["data"] == count
    evaluate.main([str(run), *FEW, "--overwrite", "--num_exported", "0"])
    assert not (run / "evaluation.nc").exists()
    assert "exported" not in capsys.readouterr().out
    for count in ("-1", "999999999"):
        line = refused(capsys, run, *FEW, "--overwrite", "--num_exported", count)
        assert "--num_exported: expected from 0 to" in line
