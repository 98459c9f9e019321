"""Running a Pyro model and guide on (sample, datum) pairs: the joint log-densities behind the weights.

A *program* is any Pyro function of the data. It is run inside a plate over samples, so that every
site in its data plate has batch shape (K, B); sites are then scored one by one, without their
scale, so that subsampling and KL weights never enter.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from pyro_vae.compiled import record
from pyro_vae.data.arrays import as_tensor

Program = Callable[..., Any]
Data = Tensor | tuple[Tensor, ...]
Values = Mapping[str, Tensor]

SAMPLES = "pyro_vae_samples"  # the plate over samples
_RECORD_AT = 10  # chunks of one shape until recording them pays


def arguments(x: Data) -> tuple[Tensor, ...]:
    """Return the data as the program's positional arguments, each with one row per datum."""
    return x if isinstance(x, tuple) else (x,)


def num_data(x: Data) -> int:
    """Return the number of data, N."""
    return len(arguments(x)[0])


def take(x: Data, rows: slice | Tensor) -> Data:
    """Return some rows of the data."""
    return tuple(a[rows] for a in x) if isinstance(x, tuple) else x[rows]


def as_data(program: Program, x: Any, name: str = "x") -> Data:
    """Return data as a program takes them: what is no tensor becomes one, and a VAE's data rows of its own kind.

    Args:
        program: A Pyro program, or a VAE's model or guide.
        x: A tensor, an array or a data frame with a row for each datum, or a tuple of them, such as with labels.
        name: The argument's, for messages.

    Raises:
        ValueError: If it is something else.
    """
    first, *others = x if isinstance(x, tuple) else (x,)
    rows = getattr(getattr(program, "__self__", program), "rows", None)
    first = as_tensor(name, first) if rows is None else rows(first, name)
    return (first, *(as_tensor(name, a) for a in others)) if isinstance(x, tuple) else first


def as_program(model: Any, guide: Any, x: Any) -> tuple[Program, Program, Data]:
    """Read both (model, guide, x) and (vae, x), where ``vae`` has a model and a guide."""
    if x is not None:
        return model, guide, as_data(model, x)
    if not hasattr(model, "model") or not hasattr(model, "guide"):
        raise ValueError(f"expected (model, guide, x) or (vae, x), but {type(model).__name__} has no model and guide")
    return model.model, model.guide, as_data(model, guide)


def as_model(model: Any) -> Program:
    """Return the model of a VAE, or the model itself."""
    return getattr(model, "model", model)


def trace(program: Program, x: Data, num_samples: int, values: Values | None = None) -> poutine.Trace:
    """Run a program with ``num_samples`` samples of each datum; sites in ``values`` are held at them."""
    if values is not None:
        program = poutine.condition(program, data=dict(values))
    with poutine.trace() as tracer, pyro.plate(SAMPLES, num_samples, dim=-2):
        program(*arguments(x))
    return prune_subsample_sites(tracer.trace)


def sample_sites(trace: poutine.Trace) -> Iterator[tuple[str, Any]]:
    """Yield (name, site) of the sites that carry a density."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not (site["infer"] or {}).get("_deterministic"):
            yield name, site


def log_prob(trace: poutine.Trace, names: Container[str] | None = None) -> Tensor:
    """Return the joint log-density of a trace's sites, or of some, (K, B): masked, but never scaled."""
    return sum(
        scale_and_mask(site["fn"].log_prob(site["value"]), 1.0, site["mask"])
        for name, site in sample_sites(trace)
        if names is None or name in names
    )


def draw(guide: Program, x: Data, num_samples: int) -> tuple[dict[str, Tensor], Tensor]:
    """Draw z from the guide; return its sites, (K, B, ...), and log q(z|x), (K, B)."""
    drawn = trace(guide, x, num_samples)
    values = {name: site["value"] for name, site in sample_sites(drawn) if not site["is_observed"]}
    return values, log_prob(drawn)


def log_density(program: Program, x: Data, values: Values) -> Tensor:
    """Return the program's joint log-density with its latents at ``values``, (K, B)."""
    shape = _pairs(values)
    return log_prob(trace(program, x, shape[0], values)).expand(shape)


class ChunkedLogDensity:
    """A program's joint log-density, on at most ``chunk_size`` (datum, sample) pairs at once.

    Chunks that fit in the processor's cache are the fastest, if running Pyro's handlers for each
    of them costs nothing. So the tensor operations of the program are recorded at the third chunk
    of a shape, and repeated from then on. A program that does more than tensor operations on its
    data can't be recorded, or the record doesn't agree with it on the next chunk; it then runs as it is.

    Args:
        program: The program. Its parameters must not change as long as this object is used.
        chunk_size: Bounds the memory, but does not change the result.
    """

    def __init__(self, program: Program, chunk_size: int):
        self.program, self.chunk_size = program, chunk_size
        self._seen: Counter[tuple] = Counter()
        self._records: dict[tuple, Callable[..., Tensor] | None] = {}

    def __call__(self, x: Data, values: Values) -> Tensor:
        """Return the log-density with the latents at ``values``, (K, B)."""
        num_samples, size = _pairs(values)
        rows = min(size, self.chunk_size)
        samples = max(1, self.chunk_size // rows)
        columns = []
        for i in range(0, size, rows):
            at, x_rows = slice(i, i + rows), take(x, slice(i, i + rows))
            parts = [
                self._one(x_rows, {name: v[k : k + samples, at] for name, v in values.items()})
                for k in range(0, num_samples, samples)
            ]
            columns.append(torch.cat(parts))
        return torch.cat(columns, dim=1)

    def _one(self, x: Data, values: Values) -> Tensor:
        tensors = (*arguments(x), *values.values())
        key = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        self._seen[key] += 1
        if self._seen[key] == _RECORD_AT and not torch.is_grad_enabled():
            self._records[key] = self._record(x, values)
        recorded = self._records.get(key)
        if recorded is None:
            return log_density(self.program, x, values)
        if self._seen[key] == _RECORD_AT + 1:
            plain = log_density(self.program, x, values)
            if not torch.allclose(plain, recorded(*tensors), rtol=1e-4, equal_nan=True):
                self._records[key] = None
            return plain
        return recorded(*tensors)

    def _record(self, x: Data, values: Values) -> Callable[..., Tensor] | None:
        """Return the tensor operations that the program runs, as a function of the data and the latents."""
        num_arguments = len(arguments(x))

        def run(*tensors: Tensor) -> Tensor:
            data = tensors[:num_arguments] if isinstance(x, tuple) else tensors[0]
            return log_density(self.program, data, dict(zip(values, tensors[num_arguments:], strict=True)))

        try:
            return record(run, *arguments(x), *values.values())
        except Exception:  # whatever it was, the program itself is still there to run
            return None


def _pairs(values: Values) -> tuple[int, int]:
    first = next(iter(values.values()))
    return first.shape[0], first.shape[1]


# What torch says when it draws from distributions whose parameters nobody has validated.
_NO_PARAMETERS = ("elements of std >= 0", "probability tensor contains", "Expected p_in >= 0", "invalid Poisson rate")


@contextmanager
def quiet(model: Program, x: Data, seed: int | None, *programs: Program) -> Iterator[torch.Generator]:
    """Evaluate without gradients, validation, dropout, or a trace on the caller's random state.

    Yields:
        A generator of seeds for the blocks of noise, itself seeded by ``seed``, or where
        that is None by torch's global generator.

    Raises:
        ArithmeticError: When a distribution is drawn from whose parameters are none.
    """
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    owners = [getattr(p, "__self__", p) for p in (model, *programs)]
    modules = [m for owner in owners if isinstance(owner, nn.Module) for m in owner.modules()]
    training = [m for m in modules if m.training]
    with (
        torch.no_grad(),
        pyro.validation_enabled(False),
        own_random_state(x),
    ):
        for m in training:
            m.training = False
        try:
            yield torch.Generator().manual_seed(seed)
        except RuntimeError as error:
            if any(words in str(error) for words in _NO_PARAMETERS):
                raise ArithmeticError(
                    f"a distribution can't be drawn from, since its parameters are out of range ({error}); look for "
                    "weights, or data, that are too large or not finite"
                ) from error
            raise
        finally:
            for m in training:
                m.training = True


def reseed(seeds: torch.Generator) -> None:
    """Start the next block of noise."""
    torch.manual_seed(int(torch.randint(2**62, (), generator=seeds)))


def own_random_state(x: Data) -> AbstractContextManager:
    """Leave the global random state as it was."""
    device = arguments(x)[0].device
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
