"""P(X | Y): exact references, the sum over unknown labels, and the commands on conditional runs."""

import csv
import json
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import yaml
from pyro import poutine

import pyro_vae
from pyro_vae import __main__ as program
from pyro_vae import data
from pyro_vae.data.labels import keep_labels
from pyro_vae.distributions.mixture import Mixture
from pyro_vae.evidence.exact import LinearGaussian
from pyro_vae.inference import classify, score_classes
from pyro_vae.objectives import ImportanceWeightedELBO, KLWeightedELBO, elbo_terms
from pyro_vae.objectives.summed_out import SummedOutELBO
from pyro_vae.training import Training
from tests.commands import call as command
from tests.commands import refused

PROBS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


class LinearGaussians:
    """A linear-Gaussian model for each class, with its exact posterior as guide."""

    def __init__(self):
        torch.manual_seed(0)
        real = {"dtype": torch.float64}
        weight, scale = torch.randn(4, 2, **real), torch.rand(4, **real) + 0.5
        self.classes = [LinearGaussian((1 + 0.3 * c) * weight, torch.randn(4, **real), scale=scale) for c in range(3)]

    def stack(self, name):
        return torch.stack([getattr(of_class, name) for of_class in self.classes])

    def model(self, x, y):
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(PROBS), obs=y)
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=torch.float64), 1).to_event(1))
            loc = (self.stack("weight")[y] @ z[..., None])[..., 0] + self.stack("bias")[y]
            return pyro.sample("x", dist.Normal(loc, self.classes[0].scale).to_event(1), obs=x)

    def guide(self, x, y, widen=1.0):
        with pyro.plate("data", len(x), dim=-1):
            each = [of_class.posterior(x) for of_class in self.classes]
            loc = torch.stack([q.loc for q in each], -2)  # (B, C, 2)
            loc = loc.expand(*y.shape, *loc.shape[-2:]).gather(-2, y[..., None, None].expand(*y.shape, 1, 2))[..., 0, :]
            tril = torch.stack([of_class.posterior_tril for of_class in self.classes])[y]
            return pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=widen * tril))

    def log_joint(self, x):
        return torch.stack([of_class.log_evidence(x) for of_class in self.classes], -1) + PROBS.log()  # (B, C)


@pytest.fixture(scope="module")
def exact():
    return LinearGaussians()


@pytest.fixture(scope="module")
def x():
    torch.manual_seed(1)
    return 2 * torch.randn(50, 4, dtype=torch.float64)


def make(num_classes=3, label_in=None, **options):
    torch.manual_seed(0)
    options = {"likelihood": "Bernoulli", "latent_dim": 2, "hidden_dims": [8]} | options
    return pyro_vae.build((1, 4, 4), num_classes=num_classes, label_in=label_in, **options).double()


def images(num=6):
    torch.manual_seed(2)
    return torch.rand(num, 16, dtype=torch.float64).round()


def test_bayes_rule_is_exact_where_the_guide_is(exact, x):
    classes = classify(exact.model, exact.guide, x, num_classes=3, num_samples=3)
    torch.testing.assert_close(classes.log_joint, exact.log_joint(x))
    torch.testing.assert_close(classes.log_evidence, exact.log_joint(x).logsumexp(-1))
    torch.testing.assert_close(classes.log_probs.exp(), exact.log_joint(x).softmax(-1))


def test_bayes_rule_is_right_within_its_error(exact, x):
    classes = classify(exact.model, lambda x, y: exact.guide(x, y, 1.5), x, num_classes=3, num_samples=1000, seed=0)
    errors = (classes.log_joint - exact.log_joint(x)) / classes.se
    assert 0.7 < errors.square().mean().sqrt() < 1.3
    assert errors.abs().max() < 5


def test_the_sum_over_unknown_labels_is_exact(exact, x):
    logits = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    y = torch.tensor([0, 1, 2, -1, -1]).repeat(10)
    bounds = SummedOutELBO(lambda of: logits[y == -1]).bounds(exact.model, exact.guide, (x, y))
    log_joint, log_q = exact.log_joint(x), logits.log_softmax(-1)
    expected = torch.stack([(log_q[b].exp() * (log_joint[b] - log_q[b])).sum() for b in range(50)])
    known = y >= 0
    torch.testing.assert_close(bounds[~known], expected[~known])
    torch.testing.assert_close(bounds[known], log_joint[known].gather(1, y[known][:, None])[:, 0])
    assert (bounds[~known] < log_joint[~known].logsumexp(-1)).all()
    sure = SummedOutELBO(lambda of: log_joint[y == -1]).bounds(exact.model, exact.guide, (x, y))
    torch.testing.assert_close(sure[~known], log_joint[~known].logsumexp(-1))


def test_the_sum_over_unknown_labels_is_what_drawing_them_gives():
    vae, x = make(), images(200)
    exact = SummedOutELBO(vae.class_logits, num_particles=200).bounds(vae.model, vae.guide, (x, torch.full((200,), -1)))
    drawn = torch.stack([torch.sub(*elbo_terms(vae.model, vae.guide, x, seed=seed)) for seed in range(100)])
    error = (drawn.mean(0) - exact.detach()) / (drawn.std(0) / 10)
    assert abs(error.mean()) < 5 / 200**0.5
    assert 0.8 < error.std() < 1.25


@pytest.mark.parametrize("label_in", [["encoder", "decoder"], ["prior"], ["encoder", "decoder", "prior"]])
def test_one_class_is_an_ordinary_vae(label_in):
    vae, x = make(1, label_in), images()
    ordinary, unknown = vae.given(0), torch.full((6,), -1)
    torch.manual_seed(0)
    expected = KLWeightedELBO().bounds(ordinary.model, ordinary.guide, x)
    torch.manual_seed(0)
    objective = SummedOutELBO(vae.class_logits) if vae.classifier is not None else KLWeightedELBO()
    torch.testing.assert_close(objective.bounds(vae.model, vae.guide, (x, unknown)), expected)


@pytest.mark.parametrize("label_in", [["encoder", "decoder"], ["decoder"], ["prior"], ["encoder", "prior"]])
@pytest.mark.parametrize("prior", ["StandardNormal", "GaussianMixture"])
def test_a_class_is_the_pair_with_its_label(label_in, prior):
    vae, x = make(3, label_in, prior=prior), images()
    vae.initialize(x, torch.tensor([0, 0, 1, 2, 2, 2]))
    given = pyro_vae.log_evidence(vae.given(2), x, num_samples=50, seed=0).log_evidence
    both = pyro_vae.log_evidence(vae.model, vae.guide, (x, torch.full((6,), 2)), num_samples=50, seed=0).log_evidence
    torch.testing.assert_close(both - given, torch.full((6,), 4 / 9, dtype=torch.float64).log())
    assert vae.given(2).sample(5).shape == (5, 16)


def test_an_unknown_label_of_the_prior_alone_is_summed_out_for_each_z():
    vae, x = make(3, ["prior"], prior="GaussianMixture"), images()
    vae.initialize(x, torch.tensor([0, 0, 1, 2, 2, 2]))
    z = torch.randn(6, 2, dtype=torch.float64)

    def log_density(model, *arguments):
        trace = poutine.trace(poutine.condition(model, data={"z": z})).get_trace(*arguments)
        trace.compute_log_prob()
        return sum(site["log_prob"] for name, site in trace.nodes.items() if name in ("x", "y", "z"))

    each = torch.stack([log_density(vae.model, x, torch.full((6,), c)) for c in range(3)])
    for summed in (log_density(vae.model, x, torch.full((6,), -1)), log_density(vae.summed_out().model, x)):
        torch.testing.assert_close(summed, each.logsumexp(0))
    torch.testing.assert_close(vae._logits_at(z).log_softmax(-1), each.log_softmax(0).T)


def test_a_mixture_integrates_to_one_and_draws_from_itself():
    parts = [dist.Normal(torch.tensor([m]), 0.5).to_event(1) for m in (-2.0, 0.0, 3.0)]
    weights = torch.tensor([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]])
    mixture = Mixture(parts, weights.log())
    grid = torch.linspace(-8, 8, 4001)[:, None, None]
    mass = mixture.log_prob(grid).exp().sum(0) * 16 / 4000
    torch.testing.assert_close(mass, torch.ones(2), atol=1e-4, rtol=0)
    torch.manual_seed(0)
    drawn = mixture.sample((20000,))[..., 0]
    torch.testing.assert_close(drawn.mean(0), weights @ torch.tensor([-2.0, 0.0, 3.0]), atol=0.05, rtol=0)
    assert mixture.expand((4, 2)).sample((3,)).shape == (3, 4, 2, 1)


def test_an_unknown_label_is_never_taken_for_a_class():
    vae, x = make(), images()
    with pytest.raises((ValueError, RuntimeError)):
        pyro_vae.log_evidence(vae.model, vae.guide, (x, torch.full((6,), -1)), num_samples=2)
    few = data.load("digits", condition="label", num_labels=20)
    assert (few.labels["validation"] == -1).all()
    kept = few.labels["train"]
    assert kept[kept >= 0].bincount().tolist() == [2] * 10
    whole = data.load("digits", condition="label").labels["train"]
    assert torch.equal(kept[kept >= 0], whole[kept >= 0])
    lists = [keep_labels(whole, 20, seed) for seed in (0, 0, 1)]
    assert torch.equal(lists[0], lists[1])
    assert not torch.equal(lists[0], lists[2])


def test_hidden_labels_change_nothing_in_training():
    x, weights = images(60).float(), []
    for seed in (0, 1):
        y = torch.randint(3, (60,), generator=torch.Generator().manual_seed(seed))
        y[:30] = torch.arange(30) % 3
        vae = make().float()
        y = torch.where(torch.arange(60) < 30, y, -1)
        vae.initialize(x, y)
        pyro_vae.fit(vae, x, y=y, epochs=2, batch_size=20)
        weights.append(torch.cat([p.flatten() for p in vae.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("label_in", [["encoder", "decoder"], ["prior"]])
@pytest.mark.parametrize("known", ["all", "some", "none"])
def test_training_reaches_every_parameter(label_in, known):
    vae, x = make(3, label_in, prior="GaussianMixture").float(), images(60).float()
    y = torch.arange(60) % 3
    y = {"all": y, "some": torch.where(torch.arange(60) < 6, y, -1), "none": None}[known]
    before = {name: p.clone() for name, p in vae.named_parameters()}
    rows = pyro_vae.fit(vae, x, y=y, epochs=1, batch_size=30)
    assert math.isfinite(rows[-1]["elbo"])
    still = {name for name, p in vae.named_parameters() if torch.equal(p, before[name])}
    assert not still


def test_unknown_labels_do_not_count_in_the_class_probabilities():
    vae = make()
    vae.initialize(images(), torch.tensor([0, 0, 1, -1, -1, -1]))
    torch.testing.assert_close(vae.class_probs, torch.tensor([3 / 6, 2 / 6, 1 / 6], dtype=torch.float64))


@pytest.mark.parametrize("label_in", [["encoder", "decoder"], ["prior"]])
def test_the_classifier_learns_from_few_labels(label_in):
    vae, x = make(3, label_in, latent_dim=8, hidden_dims=[32]).float(), images(60).float()
    y = torch.where(torch.arange(60) < 6, torch.arange(60) % 3, -1)
    pyro_vae.fit(vae, x, y=y, epochs=40, batch_size=20, lr=0.01, classifier_weight=10.0)
    log_q = torch.stack([vae.class_logits(x[:6]).log_softmax(-1) for _ in range(100)]).mean(0)
    assert log_q.gather(1, y[:6, None]).mean() > -0.1


def test_other_objectives_take_labels():
    vae, x = make().float(), images(60).float()
    for objective in (ImportanceWeightedELBO(4), KLWeightedELBO(analytic=True), pyro.infer.TraceMeanField_ELBO()):
        pyro_vae.fit(vae, x, y=torch.arange(60) % 3, objective=objective, epochs=1, batch_size=30)
    with pytest.raises(ValueError, match="Trace_ELBO sums them out"):
        Training(vae, x, objective=ImportanceWeightedELBO(4), epochs=1, batch_size=30)


def test_labels_that_do_not_fit_are_refused():
    vae, x = make().float(), images(60).float()
    for y, message in ((torch.full((60,), 3), "classes 0 to 2"), (torch.zeros(59).long(), "one label for each")):
        with pytest.raises(ValueError, match=message):
            pyro_vae.fit(vae, x, y=y, epochs=1, batch_size=30)
    with pytest.raises(ValueError, match="are for a ConditionalVAE"):
        pyro_vae.fit(pyro_vae.build((1, 4, 4)), x, y=torch.zeros(60).long(), epochs=1, batch_size=30)
    for options, message in (
        ({"label_in": ["encoder"]}, "decoder or prior"),
        ({"num_classes": None, "label_in": ["prior"]}, "no labels"),
        ({"num_classes": 0}, "from 1 to 1000"),
        ({"num_classes": 10**9}, "from 1 to 1000"),
        ({"prior": "VampPrior"}, "is made from the encoder"),
    ):
        with pytest.raises(ValueError, match=message):
            pyro_vae.build((1, 4, 4), **{"num_classes": 3} | options)


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize(
    "options", [{}, {"missing": True}, {"pixels": "levels", "levels": 3, "likelihood": "Binomial"}], ids=str
)
def test_every_network_takes_labels(network, options, tmp_path):
    vae = make(3, ["encoder", "decoder", "prior"], network=network, **options).float().eval()
    x, y = images().float(), torch.arange(6) % 3
    if options.get("missing"):
        x[0, :3] = torch.nan
    vae.initialize(x, y)
    assert torch.sub(*elbo_terms(vae.model, vae.guide, (x, y))).isfinite().all()
    other = torch.sub(*elbo_terms(vae.model, vae.guide, (x, (y + 1) % 3)))
    assert not torch.allclose(other, torch.sub(*elbo_terms(vae.model, vae.guide, (x, y))))
    pyro_vae.save(vae, tmp_path / "vae.safetensors")
    again = pyro_vae.load(tmp_path / "vae.safetensors")
    assert isinstance(again, pyro_vae.ConditionalVAE)
    assert torch.equal(again.class_logits(x), vae.class_logits(x))
    assert torch.equal(again.class_probs, vae.class_probs)


def test_how_well_classes_are_told():
    log_probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.2, 0.8]]).log()
    scores = score_classes(log_probs, torch.tensor([0, 1, 1, -1]))
    assert scores.num_examples == 3
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.log_score == pytest.approx((math.log(0.9) + math.log(0.1) + math.log(0.7)) / 3)
    assert scores.calibration_error == pytest.approx((2 * abs(0.9 - 0.5) + abs(0.7 - 1)) / 3)
    assert score_classes(log_probs, torch.full((4,), -1)) is None


QUICK = ["--epochs", "2", "--hidden_dims", "[16]", "--latent_dim", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "digits"
    command("train", "--condition", "label", *QUICK, "--run", run)
    return run


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "few"
    command("train", "--condition", "label", "--num_labels", "50", *QUICK, "--run", run)
    return run


def test_train(run, few, tmp_path, capsys):
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["num_classes"], summary["num_labels"]) == (10, 1000)
    assert "log P(X, Y)" in summary["protocol"]
    assert json.loads((few / "summary.json").read_text())["num_labels"] == 50
    assert yaml.safe_load((few / "config.yaml").read_text())["label_in"] == ["prior"]
    command("train", "--config", few / "config.yaml", "--run", tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (few / "model.safetensors").read_bytes()
    command("train", "--config", few / "config.yaml", "--epochs", "1", "--run", tmp_path / "short")
    command("train", "--resume", tmp_path / "short", "--epochs", "2")
    assert (tmp_path / "short/model.safetensors").read_bytes() == (few / "model.safetensors").read_bytes()


def test_sample(run, few, tmp_path, capsys):
    for folder in (run, few):
        command("sample", folder, "--out", tmp_path / folder.name)
        made = np.load(tmp_path / folder.name / "samples.npz")
        assert made["y"].tolist() == sorted([*range(10)] * 8)
        command("sample", folder, "--label", "7", "--num", "5", "--out", tmp_path / folder.name / "seven")
        made = np.load(tmp_path / folder.name / "seven/samples.npz")
        assert made["x"].shape == (5, 8, 8)
        assert made["y"].tolist() == [7] * 5
    command("sample", run, "--num", "3", "--out", tmp_path / "three")
    assert np.load(tmp_path / "three/samples.npz")["y"].tolist() == [0, 3, 6]
    assert "num" in refused(capsys, "sample", run, "--num", "0", "--out", tmp_path / "ten")
    assert "0 to 9" in refused(capsys, "sample", run, "--label", "10", "--out", tmp_path / "ten")
    assert "--label 0 to 9" in refused(capsys, "sample", run, "--near", "3", "--out", tmp_path / "near")
    assert not (tmp_path / "ten").exists()


def test_classify_and_evaluate(run, tmp_path, capsys):
    command("classify", run, "--num_samples", "20", "--max_examples", "60", "--out", tmp_path)
    rows = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    summary = json.loads((tmp_path / "classes.json").read_text())
    assert len(rows) == 60
    probs = np.array([[float(row[f"p_{c}"]) for c in range(10)] for row in rows])
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)
    assert [int(row["predicted"]) for row in rows] == probs.argmax(1).tolist()
    right = np.mean([row["predicted"] == row["label"] for row in rows])
    assert summary["classification"]["accuracy"] == pytest.approx(right)
    # log P(x, y) = log P(x | y) + log P(y) = log P(x) + log P(y | x)
    probs_of_classes = pyro_vae.load(run).class_probs.log()
    for row in rows:
        joint, label = float(row["log_joint"]), int(row["label"])
        assert float(row["log_evidence_given_label"]) + probs_of_classes[label] == pytest.approx(joint, abs=1e-4)
        assert float(row["log_evidence"]) + math.log(float(row[f"p_{label}"])) == pytest.approx(joint, abs=1e-4)
    command("evaluate", run, "--num_samples", "20", "--max_examples", "60")
    assert json.loads((run / "evaluation-classes.json").read_text())["log_evidence"] == pytest.approx(
        summary["log_evidence"]
    )
    command("evaluate", run, "--num_samples", "20", "--max_examples", "20", "--label", "3", "--name", "three")
    assert json.loads((run / "evaluation-three.json").read_text())["num_examples"] == 20
    assert "--overwrite" in refused(capsys, "classify", run, "--out", tmp_path)
    assert "--overwrite" in refused(capsys, "evaluate", run)
    assert "--label" in refused(capsys, "evaluate", run, "--proposal", "Refined", "--name", "other")


COMMANDS = [
    ("reconstruct", "--max_examples", 20),
    ("encode", "--max_examples", 20),
    ("interpolate", "--between", 0, 3),
    ("manifold", "--num", 3),
    ("impute", "--hide", 0.5, "--max_examples", 1, "--steps", 2, "--num_starts", 1),
    ("augment", "--data", "digits", "--max_examples", 5, "--times", 2),
    ("score", "--max_examples", 20, "--num_samples", 30),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_the_other_commands_take_one_class(run, few, arguments, tmp_path, capsys):
    name, *options = arguments
    command(name, run, *options, "--label", 3, "--out", tmp_path / "three")
    if name in ("encode", "augment"):
        labels = np.load(next((tmp_path / "three").glob("*.npz")))["y"]
        assert set(labels.tolist()) == {3}
    if name == "impute":  # by the model of each example's own class
        command(name, run, *options, "--out", tmp_path / "each")
    else:
        assert "--label 0 to 9" in refused(capsys, name, run, *options, "--out", tmp_path / "none")
        assert not (tmp_path / "none").exists()
    command(name, few, *options, "--out", tmp_path / "all")  # P(X), since there the sum over classes is a VAE


def test_check_and_report_take_one_class(run, tmp_path, capsys):
    command("report", run, "--label", 3, "--no_check", "--out", tmp_path / "report.html")
    assert "--label 0 to 9" in refused(capsys, "report", run, "--no_check", "--out", tmp_path / "other.html")
    assert "--label 0 to 9" in refused(capsys, "check", run)


def test_what_has_no_labels_is_refused(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((60, 4, 4)))
    quick = [*QUICK, "--batch_size", 20]
    line = refused(
        capsys, "train", "--data", tmp_path / "x.npy", "--condition", "label", *quick, "--run", tmp_path / "r"
    )
    assert "expected data with labels" in line
    assert "--condition" in refused(capsys, "train", "--num_labels", "50", *quick, "--run", tmp_path / "r")
    assert "no labels" in refused(capsys, "train", "--label_in", "[prior]", *quick, "--run", tmp_path / "r")
    line = refused(capsys, "train", "--condition", "label", "--num_labels", "5000", *quick, "--run", tmp_path / "r")
    assert "from 1 to 1000" in line
    for name, y in (("many", np.arange(1999, 3000)), ("none", np.full(1001, -1)), ("below", np.arange(1001) % 3 - 2)):
        np.savez(tmp_path / f"{name}.npz", x=np.random.default_rng(0).random((1001, 4, 4)), y=y)
        line = refused(
            capsys, "train", "--data", tmp_path / f"{name}.npz", "--condition", "label", *quick, "--run", tmp_path / "r"
        )
        assert "expected from 1 to 1000 classes" in line
    assert not (tmp_path / "r").exists()
    command("train", "--data", tmp_path / "x.npy", *quick, "--run", tmp_path / "plain")
    assert "without --condition" in refused(capsys, "sample", tmp_path / "plain", "--label", "3")
    assert "--condition label" in refused(capsys, "classify", tmp_path / "plain")
    assert "--overwrite" in refused(capsys, "train", "--condition", "label", *quick, "--run", tmp_path / "plain")


def test_a_table_with_a_column_of_labels(tmp_path, capsys):
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 300)
    table = [[f"{v + 3 * k:.4f}", n, "" if i % 5 == 0 else k] for i, (v, n, k) in
             enumerate(zip(rng.normal(size=300), rng.poisson(1 + kind), kind, strict=True))]  # fmt: skip
    with open(tmp_path / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([["size", "count", "kind"], *table])
    groups = "[[1, Gaussian], [1, Poisson]]"
    options = ["--likelihood", "Columns", "--likelihood.groups", groups, "--epochs", "10", "--batch_size", 10]
    options += ["--label_in", "[decoder,encoder]", "--hidden_dims", "[16]", "--latent_dim", "2", "--lr", "0.01"]
    command("train", "--data", tmp_path / "table.csv", "--condition", "kind", *options, "--run", tmp_path / "run")
    command("classify", tmp_path / "run", "--data", tmp_path / "table.csv")
    summary = json.loads((tmp_path / "run/classify/classes.json").read_text())
    assert summary["classification"]["num_examples"] == 240
    assert summary["classification"]["accuracy"] > 0.85
    with open(tmp_path / "new.csv", "w", newline="") as file:
        csv.writer(file).writerows([["size", "count"], *(row[:2] for row in table[:7])])
    command("classify", tmp_path / "run", "--data", tmp_path / "new.csv", "--out", tmp_path / "new")
    assert "classification" not in json.loads((tmp_path / "new/classes.json").read_text())
    command("sample", tmp_path / "run")
    assert (tmp_path / "run/sample/samples.csv").read_text().startswith("kind,size,count\n")
    line = refused(
        capsys, "train", "--data", tmp_path / "table.csv", "--condition", "sort", "--run", tmp_path / "other"
    )
    assert "size, count, kind" in line


def test_the_program_knows_the_command():
    assert "classify" in program.COMMANDS
