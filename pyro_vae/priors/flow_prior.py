"""The normalising-flow prior."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import pyro.distributions as dist

from pyro_vae.base import Prior
from pyro_vae.distributions.flows import NormalizingFlow, import_zuko, start_at_identity
from pyro_vae.priors.standard_normal import StandardNormal

FlowName = Literal["spline", "maf", "coupling"]


class FlowPrior(Prior):
    r"""A normalising flow, :math:`p(z) = N(f(z); 0, I) \left| \det \frac{\partial f}{\partial z} \right|`.

    Scoring, which training does at every step, is one pass through f. Drawing inverts f: one
    pass per latent dimension for the autoregressive flows, two for coupling. Starts as
    exactly N(0, I).

    Args:
        z_dim: Number of latent dimensions.
        flow: The form of f: autoregressive with rational-quadratic splines on [-5, 5] ("spline"),
            autoregressive and affine ("maf"), or affine coupling ("coupling").
        transforms: Number of transforms that f is composed of.
        hidden_dims: Widths of the hidden layers in each of them.

    Raises:
        ValueError: If there is no such flow, or ``transforms`` is not positive.

    Reference:
        Durkan et al. (2019), Neural Spline Flows, section 3.1; Papamakarios et al. (2017), Masked Autoregressive
        Flow for Density Estimation, section 3.1; Dinh et al. (2017), Density Estimation using Real NVP,
        equations 4 and 5; as a prior: Chen et al. (2017), Variational Lossy Autoencoder, section 3.2.

    Example:
        >>> p = FlowPrior(z_dim=2, flow="maf")()
        >>> p.batch_shape, p.event_shape
        (torch.Size([]), torch.Size([2]))
    """

    def __init__(
        self, z_dim: int, flow: FlowName = "spline", transforms: int = 3, hidden_dims: Sequence[int] = (64, 64)
    ):
        super().__init__()
        if flow not in get_args(FlowName):
            raise ValueError(f"flow has to be one of {', '.join(get_args(FlowName))}, not {flow!r}")
        if transforms < 1:
            raise ValueError(f"transforms has to be at least 1, not {transforms}; StandardNormal is the prior without")
        flows = import_zuko().flows
        # An autoregression over two blocks of dimensions is a coupling; zuko's RealNVP looks up its mask's indices
        # at each call, for which the CPU has to wait for the GPU.
        families = {"spline": flows.NSF, "maf": flows.MAF, "coupling": partial(flows.MAF, passes=2)}
        self.base = StandardNormal(z_dim)
        lazy_flow = families[flow](z_dim, transforms=transforms, hidden_features=hidden_dims)
        self.transform = start_at_identity(lazy_flow.transform)

    def forward(self) -> dist.Distribution:
        """Return the flow."""
        return NormalizingFlow(self.base(), self.transform().inv)
