"""A few training steps in every combination of prior, encoder, likelihood and objective.

A new part needs no line here. If its constructor has options without a default, give them in ``OPTIONS``; options that
make it cheap go into ``SMALL``.
"""

import inspect
import itertools
import math

import pytest
import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence

from pyro_vae import VAE, build
from pyro_vae.build import make_part
from pyro_vae.commands.parts import our_parts
from pyro_vae.training import Training

X_DIM, Z_DIM, BATCH, STEPS = 4, 2, 8, 3

# Options without a default.
OPTIONS = {"Columns": {"groups": [[1, {"class_path": "Laplace"}], [X_DIM - 1, {"class_path": "Bernoulli"}]]}}
# Tiny sizes of the parts that have any.
SMALL = {"components": 3, "transforms": 1, "hidden_dims": [4], "num_particles": 2}
# What an objective can be asked for beyond its defaults; tried with one likelihood, since it concerns the KL only.
CHOICES = {"gradient": ["plain", "stl"], "analytic": [True]}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Operations this small wait longer for a second thread than they take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def spec(part: type, **options: object) -> dict:
    """Return the part's class path and options, as small as they come."""
    wanted = inspect.signature(part).parameters
    small = {name: value for name, value in SMALL.items() if name in wanted}
    path = f"{part.__module__}.{part.__qualname__}"
    return {"class_path": path, "init_args": small | OPTIONS.get(part.__name__, {}) | options}


def cases() -> list:
    parts = [our_parts(kind) for kind in ("prior", "encoder", "likelihood", "objective")]
    everything = [(*names, {}) for names in itertools.product(*parts)]
    priors, encoders, likelihoods, objectives = parts
    everything += [
        (prior, encoder, likelihoods[0], objective, {name: choice})
        for prior, encoder, objective in itertools.product(priors, encoders, objectives)
        for name in CHOICES.keys() & inspect.signature(objective).parameters.keys()
        for choice in CHOICES[name]
    ]
    return [
        pytest.param(*case, id="-".join([*(part.__name__ for part in case[:4]), *map(str, case[4].values())]))
        for case in everything
    ]


def has_closed_form(vae: VAE, x: torch.Tensor) -> bool:
    try:
        kl_divergence(vae.encoder(x), vae.prior().expand(x.shape[:1]))
    except NotImplementedError:
        return False
    return True


@pytest.mark.parametrize(("prior", "encoder", "likelihood", "objective", "options"), cases())
def test_trains_or_says_why_not(prior, encoder, likelihood, objective, options):
    torch.manual_seed(0)
    parts = {"prior": spec(prior), "encoder": spec(encoder), "likelihood": spec(likelihood)}
    vae = build((X_DIM,), **parts, latent_dim=Z_DIM, hidden_dims=[4], activation="tanh", levels=5, pixels="levels")
    with torch.no_grad():
        x = vae.likelihood(vae.decoder(torch.randn(STEPS * BATCH, Z_DIM))).sample()
    vae.initialize(x)
    loss = make_part(spec(objective, **options), ELBO, {"max_plate_nesting": 1, "steps_per_epoch": STEPS})
    analytic = issubclass(objective, TraceMeanField_ELBO) or options.get("analytic", False)
    if analytic and not has_closed_form(vae, x):
        with pytest.raises(ValueError, match="the KL of site 'z' has no closed form"):
            Training(vae, x, objective=loss, epochs=1, batch_size=BATCH)
        return

    before = {name: tensor.clone() for name, tensor in vae.named_parameters()}
    training = Training(vae, x, objective=loss, epochs=1, batch_size=BATCH, compile="off")
    training.optim.not_recorded = "it takes longer than these few steps"
    (row,) = training.run()
    assert math.isfinite(row["loss"])
    assert math.isfinite(row["elbo"])
    after = dict(vae.named_parameters())
    assert all(tensor.isfinite().all() for tensor in after.values())
    still = [name for name, tensor in after.items() if torch.equal(tensor, before[name])]
    assert not still
