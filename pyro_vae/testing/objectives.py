"""The contract of an objective."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from pyro_vae.compiled import CompiledELBO, NotStatic
from pyro_vae.encoders import DiagonalNormal
from pyro_vae.evidence import LinearGaussian
from pyro_vae.likelihoods import Gaussian
from pyro_vae.networks import mlp
from pyro_vae.objectives import PerDatumELBO
from pyro_vae.priors import StandardNormal
from pyro_vae.testing.saying import ERRORS, alone, expect, expect_close, expect_gradient, make_part, saying
from pyro_vae.vae import VAE


def check_objective(
    objective: ELBO | Callable[..., ELBO], *, is_bound: bool = True, is_unbiased: bool = True, **options: Any
) -> None:
    """Require of an objective, one of Pyro's kind or a :class:`pyro_vae.objectives.PerDatumELBO`, what training needs.

    On a linear-Gaussian model, whose log P(x) is known: the loss is a number, the same with and without gradients, and
    a sum over the data; minus the loss is at most log P(x) in the mean; the gradients of all parameters are, in the
    mean, those of the loss; and compiled it does the same in each step, where it can be compiled.

    Args:
        objective: The class, a function that makes an objective, or an objective.
        is_bound: Whether it is meant to be a lower bound on log P(x).
        is_unbiased: Whether its gradient is meant to be, in the mean, that of its mean.
        **options: For the class or the function.

    Raises:
        AssertionError: If it breaks the contract.
        ValueError: If it can't be built.

    Example:
        >>> from pyro_vae.objectives import ImportanceWeightedELBO, KLWeightedELBO
        >>> check_objective(ImportanceWeightedELBO, num_particles=4)
        >>> check_objective(KLWeightedELBO(kl_weight=0.5), is_bound=False)
    """
    with alone(), pyro.validation_enabled(False):
        program = _LinearProgram()

        def make() -> ELBO:
            return make_part(objective, ELBO, {"max_plate_nesting": 1, "steps_per_epoch": 3}, options)

        name = type(make()).__name__
        with saying(name, "on a linear-Gaussian model"):
            _check_loss(name, make, program)
            if isinstance(make(), PerDatumELBO):
                _check_bounds(name, make, program)
            _check_mean(name, make, program, is_bound)
            if is_unbiased:
                _check_gradient(name, make, program)
        with saying(name, "compiled, as training does it"):
            _check_compiled(name, make, program)


class _LinearProgram:
    """A linear-Gaussian VAE, whose log P(x) is known, with an encoder that is not far from the exact posterior."""

    def __init__(self, size: int = 1000):
        torch.manual_seed(0)
        parts: dict[str, Any] = {"prior": StandardNormal(2), "likelihood": Gaussian(scale=0.7)}
        self.vae = VAE(encoder=DiagonalNormal(nn.Linear(3, 4)), decoder=mlp(2, [], (3, 1)), **parts).double()
        layer: Any = self.vae.decoder[0]  # type: ignore[index]
        layer.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, -0.5]]).double()
        exact = LinearGaussian(layer.weight.detach(), layer.bias.detach(), scale=torch.full((3,), 0.7).double())
        self.x = self.vae.sample(size)
        posterior: Any = exact.posterior(torch.cat([torch.zeros(1, 3), torch.eye(3)]).double())
        offset = posterior.mean[0]
        network: Any = self.vae.encoder.network
        with torch.no_grad():
            network.weight.copy_(torch.cat([(posterior.mean[1:] - offset).T, torch.zeros(2, 3)]))
            network.bias.copy_(torch.cat([offset, posterior.stddev[0].log()]))
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        self.log_evidence = exact.log_evidence(self.x).sum().item()

    def loss(self, objective: Any, seed: int, x: Tensor | None = None) -> float:
        torch.manual_seed(seed)
        return objective.loss(self.vae.model, self.vae.guide, self.x if x is None else x)

    def gradients(self, objective: Any, seed: int) -> tuple[Any, dict[str, Tensor | None]]:
        """Return the loss of a training step, and the gradients that it leaves."""
        torch.manual_seed(seed)
        self.vae.zero_grad()
        loss = objective.loss_and_grads(self.vae.model, self.vae.guide, self.x)
        return loss, {name: p.grad for name, p in self.vae.named_parameters()}


def _advanced(objective: ELBO) -> Any:
    """Return an objective whose loss is that of the step it would take next."""
    if hasattr(objective, "advance"):
        objective.advance()
    return objective


def _check_loss(name: str, make: Callable[[], ELBO], program: _LinearProgram) -> None:
    objective = _advanced(make())
    program.vae.zero_grad()
    loss = program.loss(objective, 0)
    expect(isinstance(loss, float) and math.isfinite(loss), name, "a finite number from loss", repr(loss))
    left = any(p.grad is not None for p in program.vae.parameters())
    expect(not left, name, "no gradients from loss, which only evaluates", "gradients")
    again = program.loss(objective, 0)
    expect(math.isclose(loss, again), name, f"the same loss from the same noise, {loss:.9g}", f"{again:.9g}")
    trained, gradients = program.gradients(make(), 0)
    same = math.isclose(loss, float(trained), rel_tol=1e-9, abs_tol=1e-9)
    expect(same, name, f"from loss_and_grads what loss gives from the same noise, {loss:.9g}", f"{float(trained):.9g}")
    for parameter, gradient in gradients.items():
        expect_gradient(name, parameter, gradient)


def _check_bounds(name: str, make: Callable[[], Any], program: _LinearProgram) -> None:
    vae, x = program.vae, program.x
    loss = program.loss(_advanced(make()), 0)
    torch.manual_seed(0)
    bounds = _advanced(make()).bounds(vae.model, vae.guide, x)
    expect(bounds.shape == (len(x),), name, f"bounds of shape ({len(x)},), one for each datum", tuple(bounds.shape))
    total = -bounds.sum().item()
    expect(math.isclose(loss, total, rel_tol=1e-9), name, f"minus the sum of its bounds, {total:.9g}, as loss", loss)


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    tensor = torch.tensor(values, dtype=torch.float64)
    return tensor.mean().item(), tensor.std().item() / len(values) ** 0.5


def _check_mean(name: str, make: Callable[[], ELBO], program: _LinearProgram, is_bound: bool) -> None:
    objective, seeds = _advanced(make()), range(30)
    mean, error = _mean_and_error([program.loss(objective, seed) for seed in seeds])
    twice, its_error = _mean_and_error([program.loss(objective, seed, program.x.repeat(2, 1)) for seed in seeds])
    off = abs(twice - 2 * mean) - ERRORS * math.hypot(its_error, 2 * error)
    expected = f"a sum over the data, which of the same data twice is {2 * mean:.4g}"
    expect(off <= 1e-6 * abs(mean), name, expected, f"{twice:.4g}")
    if is_bound:
        bound, log_evidence = -mean / len(program.x), program.log_evidence / len(program.x)
        holds = bound <= log_evidence + ERRORS * error / len(program.x) + 1e-9
        expected = f"in the mean at most log P(x), {log_evidence:.5g} nats (is_bound=False if it is no bound)"
        expect(holds, name, expected, f"{bound:.5g}")


def _check_gradient(name: str, make: Callable[[], ELBO], program: _LinearProgram) -> None:
    """Compare gradients with finite differences of the loss from the same noise, along a direction for each network."""
    vae, step = program.vae, 1e-5
    for owner in ("encoder", "decoder"):
        network = getattr(vae, owner)
        torch.manual_seed(1)
        direction = {parameter: torch.randn_like(value) for parameter, value in network.named_parameters()}

        def move(by: float, network: nn.Module = network, direction: dict[str, Tensor] = direction) -> None:
            with torch.no_grad():
                for parameter, value in network.named_parameters():
                    value.add_(by * direction[parameter])

        slopes, differences = [], []
        for seed in range(20):
            _, gradients = program.gradients(make(), seed)
            slope = sum(
                (gradient * direction[parameter.removeprefix(f"{owner}.")]).sum().item()
                for parameter, gradient in gradients.items()
                if gradient is not None and parameter.startswith(f"{owner}.")
            )
            losses = []
            for by in (step, -step):
                move(by)
                losses.append(program.loss(_advanced(make()), seed))
                move(-by)
            slopes.append((losses[0] - losses[1]) / (2 * step))
            differences.append(slope - slopes[-1])
        mean, error = _mean_and_error(differences)
        expected, size = _mean_and_error(slopes)[0], max(map(abs, slopes))
        came = f"{expected + mean:.5g} ± {error:.2g} (is_unbiased=False if that is meant)"
        said = f"in the mean the gradient of its loss, {expected:.5g} along some direction of the {owner}'s parameters"
        expect(abs(mean) <= ERRORS * error + 1e-5 * size, name, said, came)


def _check_compiled(name: str, make: Callable[[], ELBO], program: _LinearProgram) -> None:
    """Take some steps with one objective as it is, and with one that is compiled."""
    plain, compiled = make(), CompiledELBO(make())
    for seed in range(4):
        loss, gradients = program.gradients(plain, seed)
        gradients = {parameter: g if g is None else g.clone() for parameter, g in gradients.items()}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compiled_loss, compiled_gradients = program.gradients(compiled, seed)
        except NotStatic:  # it trains as it is
            return
        what = f"the same of step {seed} when compiled (scheduled has to name the methods whose numbers change)"
        expect_close(torch.as_tensor(compiled_loss).double(), torch.tensor(float(loss)).double(), name, what)
        for parameter, gradient in gradients.items():
            other = compiled_gradients[parameter]
            if gradient is not None and other is not None:
                expect_close(other, gradient, name, f"{what}: the gradient of {parameter}")
