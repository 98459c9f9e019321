"""Scores of what a model was trained on: said, avoided by cross-fitting, and beside the user's own table."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from scipy import stats

import pyro_vae
from pyro_vae.commands import classify, evaluate, score, unseen
from pyro_vae.commands.train import main as train
from pyro_vae.data import load
from pyro_vae.data.arrays import find_rows
from pyro_vae.evidence import LinearGaussian, log_evidence
from pyro_vae.inference import join_scores
from pyro_vae.inference import score as score_function
from pyro_vae.training import cross_fit


def test_equal_rows_are_found():
    generator = torch.Generator().manual_seed(0)
    among = torch.randint(3, (500, 4), generator=generator).float()
    x = torch.randint(3, (200, 4), generator=generator).float()
    among[7, 2], x[5], x[6] = torch.nan, among[7], torch.tensor([0.5, 0.0, -0.0, torch.nan])
    expected = [
        next((i for i, other in enumerate(among) if torch.equal(row.nan_to_num(9), other.nan_to_num(9))), -1)
        for row in x
    ]
    assert find_rows(x, among).tolist() == expected
    assert find_rows(torch.tensor([[-0.0, 1.0]]), torch.tensor([[0.0, 1.0]])).tolist() == [0]
    assert find_rows(x.double(), among).tolist() == expected
    assert find_rows(x[:0], among).tolist() == []


def test_no_model_sees_what_it_is_for():
    x = torch.arange(40.0).reshape(20, 2).repeat(2, 1)[torch.randperm(40)]  # each row twice
    seen = []
    for rows, fold in cross_fit(lambda rows: rows, x, num_folds=3, seed=1):
        assert (find_rows(x[fold], x[rows]) < 0).all()
        assert sorted([*rows.tolist(), *fold.tolist()]) == list(range(40))
        seen += fold.tolist()
    assert sorted(seen) == list(range(40))
    for num_folds in (1, 21):
        with pytest.raises(ValueError, match=f"from 2 to 20, the number of different rows, got {num_folds}"):
            next(cross_fit(lambda rows: rows, x, num_folds=num_folds))


def fitted(x):
    """The Gaussian of largest likelihood, which over-fits where data are few."""
    covariance = x.T.cov(correction=0)
    scale = torch.full((x.shape[1],), 0.1, dtype=x.dtype)
    return LinearGaussian(torch.linalg.cholesky(covariance), x.mean(0), scale=scale)


def test_p_values_of_training_data_are_uniform_by_cross_fitting_alone():
    # A training set of 10 and 19 held-out data for each p-value, so that these are independent: uniform on 1/20, 2/20 …
    generator = torch.Generator().manual_seed(0)
    p_values = {"trained on": [], "cross-fit": []}
    for data in torch.randn(250, 29, 4, dtype=torch.float64, generator=generator).unbind():
        x, held_out = data[:10], data[10:]

        def p_value(model, row, held_out=held_out):
            found = score_function(model.model, model.guide, row, held_out=held_out, num_samples=1, seed=0)
            return found.p_value.item()

        p_values["trained on"].append(p_value(fitted(x), x[:1]))
        for model, rows in cross_fit(lambda rows, x=x: fitted(x[rows]), x, num_folds=5):
            if 0 in rows:
                p_values["cross-fit"].append(p_value(model, x[:1]))
    counts = np.bincount(np.round(np.array(p_values["cross-fit"]) * 20).astype(int), minlength=21)[1:]
    assert stats.chisquare(counts.reshape(10, 2).sum(1)).pvalue > 0.01
    assert np.mean(p_values["cross-fit"]) == pytest.approx(0.525, abs=4 * 0.29 / 250**0.5)
    assert np.mean(p_values["trained on"]) > 0.7


def test_joined_scores_are_those_of_the_parts():
    exact = [fitted(torch.randn(50, 3, dtype=torch.float64) + shift) for shift in (0, 1)]
    x, held_out = torch.randn(9, 3, dtype=torch.float64), torch.randn(30, 3, dtype=torch.float64)
    rows = [torch.tensor([8, 0, 3]), torch.tensor([1, 2, 4, 5, 6, 7])]
    parts = [
        (score_function(of.model, of.guide, x[at], held_out=held_out, num_samples=2, seed=0), at)
        for of, at in zip(exact, rows, strict=True)
    ]
    joined = join_scores(parts)
    for of, at in zip(exact, rows, strict=True):
        torch.testing.assert_close(joined.evidence.log_evidence[at], of.log_evidence(x[at]))
        p = (1 + (of.log_evidence(held_out) <= of.log_evidence(x[at])[:, None]).sum(1)) / 31
        torch.testing.assert_close(joined.p_value[at], p.double())
    torch.testing.assert_close(
        joined.held_out.log_evidence, (exact[0].log_evidence(held_out) + exact[1].log_evidence(held_out)) / 2
    )
    assert joined.p_value[joined.rank.argsort()].diff().min() >= 0


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def columns_of(path):
    first, *rows = rows_of(path)
    return dict(zip(first, zip(*rows, strict=True), strict=True))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A run on a table whose columns a, b and c agree."""
    folder = tmp_path_factory.mktemp("unseen")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 1)) + 0.1 * rng.normal(size=(120, 3))
    np.savetxt(folder / "all.csv", x, delimiter=",", header="a,b,c", comments="", fmt="%.4f")
    options = ["--likelihood", "Gaussian", "--epochs", "150", "--lr", "0.01", "--latent_dim", "1"]
    options += ["--hidden_dims", "[]", "--test", "0.2", "--validation", "0.2"]
    train(["--data", str(folder / "all.csv"), *options, "--run", str(folder / "run")])
    return folder


def call(run, out, *options):
    score.main([str(run), "--num_samples", "30", "--out", str(out), *map(str, options)])
    return json.loads((out / "scores.json").read_text()), columns_of(out / "scores.csv")


def test_rows_that_were_trained_on_are_said_to_be(table, tmp_path, capsys):
    summary, columns = call(table / "run", tmp_path / "a", "--data", table / "all.csv")
    trained = pyro_vae.runs.opening.run_data(table / "run").train
    x = torch.tensor([[float(cell) for cell in row] for row in rows_of(table / "all.csv")[1:]])
    expected = find_rows(x, trained) >= 0
    assert expected.sum() == len(trained) == summary["num_trained_on"] == 72
    assert [flag == "1" for flag in columns["trained_on"]] == expected.tolist()
    output = capsys.readouterr().out
    assert "trained on  72 of 120 examples" in output
    assert "--cross_fit 5" in output
    _, columns = call(table / "run", tmp_path / "b")
    assert set(columns["trained_on"]) == {"0"}
    assert "trained on" not in capsys.readouterr().out
    evaluate.main([str(table / "run"), "--data", str(table / "all.csv"), "--num_samples", "5"])
    assert "trained on  72 of these 120 examples" in capsys.readouterr().out


def test_images_are_compared_before_a_random_form_is_drawn(tmp_path, capsys):
    options = ["--epochs", "1", "--latent_dim", "2", "--hidden_dims", "[8]", "--condition", "label"]
    train([*options, "--run", str(tmp_path / "run")])
    digits = load("digits", pixels="levels")
    mixed = torch.cat([digits.train[:7], digits.test[:4]]).to(torch.uint8).reshape(-1, 8, 8)
    np.savez(tmp_path / "mixed.npz", x=mixed.numpy())
    summary, columns = call(tmp_path / "run", tmp_path / "s", "--data", tmp_path / "mixed.npz", "--label", 3)
    assert columns["trained_on"] == ("1",) * 7 + ("0",) * 4
    assert summary["num_trained_on"] == 7
    summary, _ = call(tmp_path / "run", tmp_path / "t", "--split", "train", "--label", 3)
    assert summary["num_trained_on"] == summary["num_examples"] > 50
    capsys.readouterr()
    classify.main([str(tmp_path / "run"), "--data", str(tmp_path / "mixed.npz"), "--num_samples", "2"])
    assert "trained on  7 of these 11 examples" in capsys.readouterr().out


def test_more_models_than_training_data_are_refused(table, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call(table / "run", tmp_path / "out", "--data", table / "all.csv", "--cross_fit", "100000")
    assert "error: --cross_fit: expected at most " in capsys.readouterr().err


def test_cross_fitting_trains_where_the_command_says(table, tmp_path):
    config = shutil.copytree(table / "run", tmp_path / "run") / "config.yaml"
    config.write_text(config.read_text().replace("device: auto", "device: cuda:9"))
    options = ["--data", table / "all.csv", "--cross_fit", "2", "--device", "cpu"]
    summary, _ = call(tmp_path / "run", tmp_path / "out", *options)
    assert summary["cross_fit"] == 2


def test_cross_fitting_scores_each_row_by_a_model_that_did_not_see_it(table, tmp_path, capsys, monkeypatch):
    models, set_up = [], unseen.set_up

    def watched(config, dataset):
        vae, training = set_up(config, dataset)
        models.append((vae, dataset.train))
        return vae, training

    monkeypatch.setattr(unseen, "set_up", watched)
    options = ["--data", table / "all.csv", "--cross_fit", "3"]
    summary, columns = call(table / "run", tmp_path / "a", *options)
    assert summary["cross_fit"] == len(models) == 3
    x = torch.tensor([[float(cell) for cell in row] for row in rows_of(table / "all.csv")[1:]])
    found = torch.tensor([float(value) for value in columns["log_evidence"]]).double()
    trained = torch.tensor([flag == "1" for flag in columns["trained_on"]])
    for vae, own in [(pyro_vae.load(table / "run"), None), *models]:
        rows = ~trained if own is None else trained & (find_rows(x, own) < 0)
        assert rows.sum() >= 24
        expected = log_evidence(vae, x[rows], num_samples=2000, seed=0).log_evidence
        assert ((found[rows] - expected).abs() < 1).all()
        assert (found[rows] - expected).mean().abs() < 0.1
    assert "cross-fit   72 of 120 examples; each by one of 3 models that did not see it" in capsys.readouterr().out
    _, repeated = call(table / "run", tmp_path / "b", *options)
    assert repeated == columns
    # Where none was trained on, nothing is trained.
    models.clear()
    _, columns = call(table / "run", tmp_path / "c", "--cross_fit", "3")
    assert not models
    assert columns["log_evidence"] == call(table / "run", tmp_path / "d")[1]["log_evidence"]


def test_cross_fitting_of_one_class(tmp_path):
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=60), np.arange(60) % 2 + 3, rng.normal(size=60)], 1)
    np.savetxt(tmp_path / "kinds.csv", x, delimiter=",", header="a,kind,b", comments="", fmt="%.4f")
    options = ["--likelihood", "Gaussian", "--epochs", "2", "--latent_dim", "1", "--hidden_dims", "[4]"]
    train(["--data", str(tmp_path / "kinds.csv"), "--condition", "kind", *options, "--run", str(tmp_path / "run")])
    options = ["--data", tmp_path / "kinds.csv", "--label", "4", "--cross_fit", "2", "--level", "0.9"]
    summary, columns = call(tmp_path / "run", tmp_path / "out", *options)
    assert summary["num_examples"] == 30
    assert set(columns["kind"]) == {"4.0000"}
    assert columns["a"] == tuple(row[0] for row in rows_of(tmp_path / "kinds.csv")[1:] if row[1] == "4.0000")


def test_too_few_held_out_examples_for_the_level_are_a_warning(table, tmp_path, capsys):
    with pytest.warns(UserWarning, match="no p-value is below 0.04, and nothing will be flagged"):
        summary, columns = call(table / "run", tmp_path / "a", "--data", table / "all.csv", "--level", "0.03")
    assert summary["flagged"] == 0
    assert len(columns["p_value"]) == 120


def test_the_users_own_columns_stay_as_they_are(table, tmp_path):
    (tmp_path / "own.csv").write_text('a, b ,c\n"1.50",1.5e0,01.4\n\n-0.2,-.2,-0.20\n0.3,0.3,5\n')
    _, columns = call(table / "run", tmp_path / "s", "--data", tmp_path / "own.csv", "--max_examples", "3")
    assert [columns[name] for name in ("a", " b ", "c")] == [
        ("1.50", "-0.2", "0.3"), ("1.5e0", "-.2", "0.3"), ("01.4", "-0.20", "5")
    ]  # fmt: skip
    names = list(columns)
    assert names.index("p_value") < names.index("a")
    # Names that are taken, and such that stand there twice.
    (tmp_path / "clash.csv").write_text("rank,rank,flag\n1.0,1.1,0.9\n-2.0,-2.1,-2.2\n")
    _, columns = call(table / "run", tmp_path / "t", "--data", tmp_path / "clash.csv")
    assert set(columns["rank"]) == {"1", "2"}
    assert [columns[name] for name in ("rank (2)", "rank (3)", "flag (2)")] == [
        ("1.0", "-2.0"), ("1.1", "-2.1"), ("0.9", "-2.2")
    ]  # fmt: skip
    (tmp_path / "bare.csv").write_text("1,1,1\n2,2,2\n")
    _, columns = call(table / "run", tmp_path / "u", "--data", tmp_path / "bare.csv")
    assert (columns["a"], columns["c"]) == (("1", "2"), ("1", "2"))
    _, columns = call(table / "run", tmp_path / "v")  # the run's own table
    assert len(columns["a"]) == 24


def test_the_columns_that_make_a_row_unusual_are_named(table, tmp_path, capsys):
    rows = rows_of(table / "all.csv")
    rows[4][2], rows[9][0] = "7.0", "-8.0"
    with open(tmp_path / "odd.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    _, columns = call(table / "run", tmp_path / "s", "--data", tmp_path / "odd.csv")
    assert (columns["columns"][3], columns["columns"][8]) == ("c", "a")
    output = capsys.readouterr().out
    assert "index 3: c 7 rather than " in output
    assert "index 8: a -8 rather than " in output
    details = columns_of(tmp_path / "s" / "columns.csv")
    at = next(i for i, key in enumerate(zip(details["index"], details["column"], strict=True)) if key == ("3", "c"))
    assert float(details["value"][at]) == 7.0
    assert float(details["expected"][at]) == pytest.approx((float(rows[4][0]) + float(rows[4][1])) / 2, abs=0.3)
    log_prob, sd, surprise = (float(details[name][at]) for name in ("log_prob", "sd", "surprise"))
    assert surprise == pytest.approx(-log_prob - np.log(sd), abs=1e-3)
    assert surprise > 20
    looked_at = [i for i, names in enumerate(columns["columns"]) if names]
    assert len(looked_at) * 3 == len(details["index"])
    call(table / "run", tmp_path / "t", "--data", tmp_path / "odd.csv", "--num_explained", "0")
    assert not (tmp_path / "t" / "columns.csv").exists()


@pytest.mark.parametrize(("option", "said"), [("--cross_fit", "must be at least 2"), ("--num_explained", "at least 0")])
def test_numbers_that_make_no_sense_are_refused(table, tmp_path, capsys, option, said):
    with pytest.raises(SystemExit):
        call(table / "run", tmp_path / "s", option, -1)
    assert said in capsys.readouterr().err
