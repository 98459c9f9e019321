"""From Python: data of every kind that holds numbers are taken, all else is refused in one sentence."""

import numpy as np
import pandas
import pyro.infer
import pytest
import torch

import pyro_vae
from pyro_vae.data import load
from pyro_vae.equations import check
from pyro_vae.evidence import ais, bidirectional, laplace, log_evidence, log_weights, quadrature, refined, to_arviz
from pyro_vae.inference import (
    augment,
    classify,
    diagnose,
    encode,
    gibbs,
    impute,
    interpolate,
    log_prob_missing,
    reconstruct,
    sample,
    score,
    traverse,
)

KINDS = {
    "float64 tensor": lambda x: x.double(),
    "integer tensor": lambda x: x.long(),
    "boolean tensor": lambda x: x.bool(),
    "float64 array": lambda x: x.double().numpy(),
    "uint8 array": lambda x: x.to(torch.uint8).numpy(),
    "images": lambda x: x.reshape(-1, 4, 4),
    "images with a channel": lambda x: x.reshape(-1, 1, 4, 4).numpy(),
    "data frame": lambda x: pandas.DataFrame(x.numpy()),
    "data frame of objects": lambda x: pandas.DataFrame(x.numpy()).astype(object),
    "list": lambda x: x.tolist(),
}
FEW = {"num_samples": 5, "seed": 0}
TAKES_DATA = {
    "log_weights": lambda vae, x: log_weights(vae, x, **FEW),
    "log_evidence": lambda vae, x: log_evidence(vae, x, **FEW).log_evidence,
    "log_evidence of model and guide": lambda vae, x: log_evidence(vae.model, vae.guide, x, **FEW).log_evidence,
    "refined": lambda vae, x: (
        log_evidence(vae.model, refined(vae.model, vae.guide, x, steps=2, seed=0), x, **FEW).log_evidence
    ),
    "laplace": lambda vae, x: log_evidence(vae.model, laplace(vae.model, vae.guide, x, seed=0), x, **FEW).log_evidence,
    "ais": lambda vae, x: ais(vae.model, x, num_temperatures=3, num_chains=2, seed=0).log_evidence,
    "bidirectional": lambda vae, x: bidirectional(vae.model, x, num_temperatures=3, num_chains=2, seed=0).gap,
    "quadrature": lambda vae, x: quadrature(vae.model, x, num_points=10, max_zooms=1),
    "to_arviz": lambda vae, x: torch.from_numpy(to_arviz(vae, x, num_draws=3, seed=0)["posterior"]["z"].to_numpy()),
    "encode": lambda vae, x: encode(vae, x, seed=0).loc,
    "reconstruct": lambda vae, x: reconstruct(vae, x, seed=0).x,
    "VAE.reconstruct": lambda vae, x: vae.reconstruct(x),
    "score": lambda vae, x: score(vae, x, held_out=x, **FEW).p_value,
    "augment": lambda vae, x: augment(vae, x, times=2, seed=0),
    "impute": lambda vae, x: impute(vae, x, num_samples=5, num_starts=1, steps=2, seed=0).mean,
    "gibbs": lambda vae, x: gibbs(vae, x, num_steps=4, num_chains=2, seed=0).mean,
    "log_prob_missing": lambda vae, x: (
        log_prob_missing(vae, x, x, num_samples=5, num_starts=1, steps=2, seed=0).log_prob
    ),
    "check": lambda vae, x: torch.tensor(
        [row.left for row in check(vae, x, num_draws=50, num_gradients=20) if row.left is not None]
    ),
    "fit": lambda vae, x: torch.tensor([row["loss"] for row in pyro_vae.fit(vae, x, validation=x, epochs=2)]),
}

SLOW = {"ais", "bidirectional", "check"}  # which take data by the same function as the others


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return pyro_vae.build((1, 4, 4), latent_dim=1, hidden_dims=[8])


@pytest.fixture
def x():
    return (torch.rand(12, 16, generator=torch.Generator().manual_seed(0)) < 0.5).float()


@pytest.mark.parametrize("function", TAKES_DATA)
def test_all_that_holds_numbers_is_taken_and_means_the_same(function, vae, x):
    weights = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    results = {}
    kinds = {kind: KINDS[kind] for kind in ("images", "float64 array")} if function in SLOW else KINDS
    for kind, convert in ({"rows": lambda x: x} | kinds).items():
        vae.load_state_dict(weights)
        results[kind] = TAKES_DATA[function](vae, convert(x))
    for kind, result in results.items():
        assert torch.equal(result, results["rows"]), kind


def test_single_data_may_be_arrays(vae, x):
    one, two = x[0], x[1]
    for convert in (torch.Tensor.double, torch.Tensor.numpy, torch.Tensor.long):
        assert torch.equal(interpolate(vae, convert(one), convert(two), num=3).x, interpolate(vae, one, two, num=3).x)
        assert torch.equal(sample(vae, 3, near=convert(one), seed=0).x, sample(vae, 3, near=one, seed=0).x)
        assert torch.equal(traverse(vae, [0], num=3, near=convert(one)).x, traverse(vae, [0], num=3, near=one).x)


def test_labels_may_be_arrays(x):
    torch.manual_seed(0)
    vae, y = pyro_vae.build((1, 4, 4), latent_dim=2, hidden_dims=[8], num_classes=3), torch.arange(12) % 3
    expected = log_evidence(vae.model, vae.guide, (x, y), **FEW).log_evidence
    for convert in (np.asarray, pandas.Series, list):
        assert torch.equal(log_evidence(vae, (x.numpy(), convert(y.tolist())), **FEW).log_evidence, expected)
        pyro_vae.fit(vae, x.numpy(), y=convert(y.tolist()), epochs=1)
        expected = log_evidence(vae, (x, y), **FEW).log_evidence
    assert classify(vae, x.numpy().astype(int), num_samples=3).label.shape == (12,)
    assert diagnose(vae, (x.numpy(), y.tolist()), (x, y)) == diagnose(vae, (x, y), (x, y))


def test_a_vae_in_double_precision_computes_in_it(vae, x):
    assert log_evidence(vae.double(), x.numpy(), **FEW).log_evidence.dtype == torch.float64


BAD = {
    "text": (pandas.DataFrame({"a": ["one", "two"]}), "expected numbers, as a tensor, an array or a data frame"),
    "ragged": ([[0.0, 1.0], [0.0]], "expected numbers"),
    "none": (object(), "expected numbers"),
    "width": (torch.zeros(3, 17), r"expected rows of 16 numbers each \(1x4x4\), got shape \(3, 17\)"),
    "one datum": (torch.zeros(16), r"expected a row for each datum, \(N, D\) or \(N, H, W\), got shape \(16,\)"),
    "sparse": (torch.zeros(3, 16).to_sparse(), r"expected a dense tensor, got one with layout torch.sparse_coo"),
    "complex": (torch.zeros(3, 16, dtype=torch.complex64), "expected real numbers, got torch.complex64"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("function", TAKES_DATA)
def test_all_else_is_refused_in_one_sentence(function, bad, vae):
    value, message = BAD[bad]
    with pytest.raises(ValueError, match=message) as raised:
        TAKES_DATA[function](vae, value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (pyro.infer.JitTrace_ELBO(), "JitTrace_ELBO is traced by torch"),
        (pyro.infer.JitTraceGraph_ELBO(), "JitTraceGraph_ELBO is traced by torch"),
        (pyro.infer.JitTraceEnum_ELBO(), "JitTraceEnum_ELBO is traced by torch"),
        (pyro.infer.ReweightedWakeSleep(), "ReweightedWakeSleep returns two losses"),
        (pyro.infer.TraceTailAdaptive_ELBO(num_particles=2), "TraceTailAdaptive_ELBO has no finite loss"),
        (pyro.infer.Trace_ELBO, "got the class Trace_ELBO; call it"),
        (pyro.infer.EnergyDistance(), "expected one of Pyro's ELBO objects, or of ours, got EnergyDistance"),
        ("Trace_ELBO", "got str"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_objectives_that_can_not_work_are_refused_by_name(objective, message, vae, x):
    with pytest.raises(ValueError, match=message):
        pyro_vae.fit(vae, x, objective=objective, epochs=1)


def test_what_holds_tensors_shows_itself_in_a_line(vae, x):
    results = [
        load("digits"),
        log_evidence(vae, x, **FEW),
        encode(vae, x),
        sample(vae, 5),
        score(vae, x, held_out=x, **FEW),
        impute(vae, x, num_samples=5, num_starts=1, steps=2),
        bidirectional(vae.model, x, num_temperatures=3, num_chains=2),
        classify(pyro_vae.build((1, 4, 4), num_classes=2), x, num_samples=2),
    ]
    for result in results:
        assert len(repr(result)) < 600, repr(result)
        assert "\n" not in repr(result)
    assert repr(sample(vae, 5)) == "Decoded(x=(5, 16), z=(5, 1))"
    assert repr(results[1]).startswith("Evidence(log P(X) = -1")
