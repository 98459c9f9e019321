"""Write your own objective in ten lines.

``python examples/own_objective.py [--epochs N]`` takes some seconds. From the folder of this file, its class is also
known to the command line: ``python -m pyro_vae.train --objective own_objective.Combined --objective.epochs 30``.
"""

import argparse
import math
from collections.abc import Callable

import torch
from torch import Tensor

import pyro_vae
from pyro_vae.evidence import log_evidence
from pyro_vae.objectives import PerDatumELBO
from pyro_vae.program import Data, draw, log_density
from pyro_vae.testing import check_objective


# An objective is a bound for each datum. This one goes from the ELBO, which teaches the encoder well, to the tighter
# importance-weighted bound (Rainforth et al., 2018, Tighter Variational Bounds are Not Necessarily Better, section 4).
class Combined(PerDatumELBO):
    """A mean of the ELBO and the importance-weighted bound, which moves from the former to the latter."""

    scheduled = ("weight",)  # what changes from step to step; a compiled training asks for it each time

    def __init__(self, num_particles: int = 8, epochs: float = 20.0, steps_per_epoch: int = 1):
        super().__init__(num_particles=num_particles, max_plate_nesting=1, vectorize_particles=True)
        self.steps = 0  # kept with the training, which can be resumed
        self.last_step = epochs * steps_per_epoch  # training fills in steps_per_epoch; the others are options

    def advance(self) -> None:  # before each gradient
        self.steps += 1

    def weight(self) -> float:
        return max(0.0, 1 - self.steps / self.last_step)

    def bounds(self, model: Callable, guide: Callable, x: Data) -> Tensor:
        z, log_q = draw(guide, x, self.num_particles)
        log_w = log_density(model, x, z) - log_q  # (K, B)
        elbo = log_w.mean(0)
        tighter = log_w.logsumexp(0) - math.log(self.num_particles)
        return self.weight() * elbo + (1 - self.weight()) * tighter  # (B,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()

    # On a model whose log P(x) is known: that it is a bound, with the gradient of its mean, also when it is compiled.
    check_objective(Combined, num_particles=4, epochs=2.0)

    digits = pyro_vae.data.load("digits")
    steps_per_epoch = math.ceil(len(digits.train) / 50)
    for objective in (None, Combined(epochs=args.epochs / 2, steps_per_epoch=steps_per_epoch)):
        torch.manual_seed(0)
        vae = pyro_vae.build(digits.shape, latent_dim=8, hidden_dims=[100])
        pyro_vae.fit(
            vae, digits.train, draw=digits.draw, objective=objective, epochs=args.epochs, batch_size=50, lr=2e-3
        )
        result = log_evidence(vae.model, vae.guide, digits.test, num_samples=200)
        name = type(objective).__name__ if objective else "Trace_ELBO"
        elbo, evidence = result.elbo.mean(), result.log_evidence
        error = evidence.std() / len(evidence) ** 0.5
        print(f"{name:10} ELBO {elbo:.2f}, log P(x) {evidence.mean():.2f} ± {error:.2f} nats per binarized digit")


if __name__ == "__main__":
    main()
