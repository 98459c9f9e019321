"""The same VAE trained by this package and by its peers, for the benchmarks: 784-400-20-400-784, ReLU, Adam at 1e-3.

Each peer is a function of the training images, (N, 784) grey values in [0, 1] on their device, that returns

- ``run(steps)``: take so many steps on batches gathered at random, and return the mean loss, in nats per image;
- ``test(x)``: the negative ELBO of other images, from one posterior sample each, in nats per image.

All compute the article's loss. Those of NumPyro and Pythae need the extra ``bench``.
"""

import itertools

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO
from torch import Tensor, nn

from pyro_vae import VAE, mlp
from pyro_vae.encoders import DiagonalNormal
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.priors import StandardNormal
from pyro_vae.training import Training

BATCH, HIDDEN, LATENT = 128, 400, 20


def batches(x: Tensor, steps: int) -> Tensor:
    """Return the indices of ``steps`` batches."""
    return torch.randint(len(x), (steps, BATCH), device=x.device)


class ByHand(nn.Module):
    """The article's network and loss in plain PyTorch."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 784))

    def forward(self, x: Tensor) -> Tensor:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        z = loc + log_scale.exp() * torch.randn_like(loc)
        kl = 0.5 * (loc**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
        return F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum") + kl


def by_hand(x, *, fused=True, compiled=False, precision=torch.float32):
    model = ByHand().to(x.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    loss_of = torch.compile(model) if compiled else model

    def run(steps):
        total = 0.0
        for indices in batches(x, steps):
            optimizer.zero_grad()
            with torch.autocast(x.device.type, precision, enabled=precision != torch.float32):
                loss = loss_of(x[indices])
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total / steps / BATCH

    return run, torch.no_grad()(lambda x: model(x).item() / len(x))


def ours(x, **options):
    vae = VAE(
        prior=StandardNormal(LATENT),
        encoder=DiagonalNormal(mlp(784, [HIDDEN], 2 * LATENT)),
        decoder=mlp(LATENT, [HIDDEN], (784, 1)),
        likelihood=Bernoulli(grey=True),
    )
    training = Training(vae, x, batch_size=BATCH, device=str(x.device), **options)

    seeds = itertools.count()

    def run(steps):
        chosen = batches(x, steps)
        with training.stepping(next(seeds)):
            for i in chosen:
                training.svi.step(x.index_select(0, i), size=BATCH)  # as it does itself
            return sum(training.loss.take()) / steps / BATCH

    return run, lambda x: Trace_ELBO(max_plate_nesting=1).loss(vae.model, vae.guide, x) / len(x)


def plain_pyro(x, jit=False):
    """The program as a user of Pyro writes it."""
    network = ByHand().to(x.device)

    def model(x):
        pyro.module(f"decoder {jit}", network.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), LATENT), 1).to_event(1))
            logits = network.decoder(z)
            pyro.sample("x", dist.Bernoulli(logits=logits, validate_args=False).to_event(1), obs=x)

    def guide(x):
        pyro.module(f"encoder {jit}", network.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = network.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    elbo = JitTrace_ELBO(ignore_jit_warnings=True) if jit else Trace_ELBO()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), elbo)
    return (
        lambda steps: sum(svi.step(x[indices]) for indices in batches(x, steps)) / steps / BATCH,
        lambda x: Trace_ELBO().loss(model, guide, x) / len(x),
    )


def numpyro(x):
    """SVI jitted over all steps of a call, as in NumPyro's own example of a VAE."""
    import jax
    import jax.numpy as jnp
    import numpyro as npy
    import numpyro.distributions as npd

    data = jnp.asarray(x.numpy())

    def dense(name, inputs, outputs):
        bound = inputs**-0.5
        initial = npd.Uniform(-bound, bound)
        weight = npy.param(f"{name}.weight", lambda key: initial.sample(key, (inputs, outputs)))
        bias = npy.param(f"{name}.bias", lambda key: initial.sample(key, (outputs,)))
        return lambda h: h @ weight + bias

    def model(x):
        first, last = dense("decoder.0", LATENT, HIDDEN), dense("decoder.2", HIDDEN, 784)
        with npy.plate("data", len(x)):
            z = npy.sample("z", npd.Normal(jnp.zeros(LATENT), 1).to_event(1))
            logits = last(jax.nn.relu(first(z)))
            npy.sample("x", npd.Bernoulli(logits=logits, validate_args=False).to_event(1), obs=x)  # grey values

    def guide(x):
        first, last = dense("encoder.0", 784, HIDDEN), dense("encoder.2", HIDDEN, 2 * LATENT)
        with npy.plate("data", len(x)):
            loc, log_scale = jnp.split(last(jax.nn.relu(first(x))), 2, -1)
            npy.sample("z", npd.Normal(loc, jnp.exp(log_scale)).to_event(1))

    svi = npy.infer.SVI(model, guide, npy.optim.Adam(1e-3), npy.infer.Trace_ELBO())
    state = svi.init(jax.random.PRNGKey(0), data[:BATCH])

    @jax.jit
    def scan(state, indices):
        return jax.lax.scan(lambda state, i: svi.update(state, data[i]), state, indices)

    def run(steps):
        nonlocal state
        state, losses = scan(state, jnp.asarray(batches(x, steps).numpy()))
        return float(losses.mean()) / BATCH

    return run, lambda x: float(svi.evaluate(state, jnp.asarray(x.numpy()))) / len(x)


def pythae(x):
    """Pythae's model and loss, with the loop, the gather and the fused optimiser of the others."""
    from pythae.data.datasets import DatasetOutput
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    network = ByHand()

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.network = network.encoder

        def forward(self, x):
            loc, log_var = self.network(x).chunk(2, -1)
            return ModelOutput(embedding=loc, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.network = network.decoder

        def forward(self, z):
            return ModelOutput(reconstruction=self.network(z).sigmoid())

    config = VAEConfig(input_dim=(784,), latent_dim=LATENT, reconstruction_loss="bce")
    model = PythaeVAE(config, encoder=Encoder(), decoder=Decoder()).to(x.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def run(steps):
        total = 0.0
        for indices in batches(x, steps):
            optimizer.zero_grad()
            loss = model(DatasetOutput(data=x[indices])).loss
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total / steps

    return run, torch.no_grad()(lambda x: model(DatasetOutput(data=x)).loss.item())


PEERS = {
    "PyTorch by hand, fused Adam": by_hand,
    "PyTorch by hand, plain Adam": lambda x: by_hand(x, fused=False),
    "PyTorch by hand, torch.compile": lambda x: by_hand(x, compiled=True),
    "PyTorch by hand, bfloat16": lambda x: by_hand(x, precision=torch.bfloat16),
    "pyro_vae, compiled": ours,
    "pyro_vae, compiled, bfloat16": lambda x: ours(x, precision="bfloat16"),
    "pyro_vae, eager": lambda x: ours(x, compile="off"),
    "Pyro's SVI": plain_pyro,
    "Pyro's JitTrace_ELBO": lambda x: plain_pyro(x, jit=True),
    "NumPyro": numpyro,
    "Pythae": pythae,
}
