"""The bound on log P(X) or log P(X, Y) where only some labels are known: the others are summed out exactly."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae.data.labels import UNKNOWN
from pyro_vae.objectives.per_datum import PerDatumELBO
from pyro_vae.program import Data, log_prob, sample_sites, trace


class SummedOutELBO(PerDatumELBO):
    r"""The evidence lower bound of data (x, y) of which some labels are unknown, -1.

    .. math:: L(x, y) = E_{q(z|x, y)}\left[\log \frac{p(x, y, z)}{q(z|x, y)}\right] \le \log p(x, y), \qquad
              U(x) = \sum_c q(c|x) \left(L(x, c) - \log q(c|x)\right) \le \log p(x)

    L where the label is known and U where it isn't, with the sum over all classes: only z is sampled.

    Args:
        class_logits: Maps x to the logits of q(y|x), (B, C).
        num_particles: Samples of z for each datum and class.

    Reference:
        Kingma, Rezende, Mohamed & Welling (2014), Semi-supervised Learning with Deep Generative Models,
        equations 6 and 7.

    Example:
        >>> from pyro_vae import build
        >>> vae, x = build((1, 4, 4), num_classes=3), torch.ones(2, 16)
        >>> SummedOutELBO(vae.class_logits).bounds(vae.model, vae.guide, (x, torch.tensor([2, -1]))).shape
        torch.Size([2])
    """

    def __init__(self, class_logits: Callable[[Tensor], Tensor], num_particles: int = 1):
        super().__init__(num_particles=num_particles, max_plate_nesting=1, vectorize_particles=True)
        self.class_logits = class_logits

    def bounds(self, model: Callable, guide: Callable, x: Data) -> Tensor:
        """Return the bound of each datum, (B,), in nats."""
        x, y = x
        known = y != UNKNOWN
        bound = x.new_zeros(len(x))
        if known.any():
            bound[known] = self._elbo(model, guide, y[known].expand(1, -1), x[known])[0]
        if not known.all():
            bound[~known] = self._without_labels(model, guide, x[~known])
        return bound

    def _without_labels(self, model: Callable, guide: Callable, x: Tensor) -> Tensor:
        """Return U(x) of some data, (B,)."""
        log_q = self.class_logits(x).log_softmax(-1).T  # (C, B)
        classes = torch.arange(len(log_q), device=x.device)[:, None].expand_as(log_q)
        return (log_q.exp() * (self._elbo(model, guide, classes, x) - log_q)).sum(0)

    def _elbo(self, model: Callable, guide: Callable, y: Tensor, x: Tensor) -> Tensor:
        """Return L(x, y) of some data, with several labels for each of them, (C, B)."""
        labels = y.repeat(self.num_particles, 1)
        drawn = trace(guide, (x, labels), len(labels))
        z = {name: site["value"] for name, site in sample_sites(drawn)}
        log_w = log_prob(trace(model, (x, labels), len(labels), z)) - log_prob(drawn)
        return log_w.unflatten(0, (self.num_particles, len(y))).mean(0)
