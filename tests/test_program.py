"""A program whose chunks are recorded and repeated gives what it gives when it runs itself."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vae import build
from pyro_vae.compiled import NotRecordable, record
from pyro_vae.program import ChunkedLogDensity, log_density
from tests.processes import Ended

X = torch.linspace(-2, 2, 5)[:, None]


def normal(x, more=None):
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1).to_event(1))
        pyro.sample("x", dist.Normal(z, 1).to_event(1), obs=x)
        if more is not None:
            pyro.factor("more", more(z))


def branching(x):
    normal(x, lambda z: torch.ones(z.shape[:-1]) if z.sum() > 0 else torch.zeros(z.shape[:-1]))


def leaving_torch(x):
    normal(x, lambda z: torch.from_numpy(z.numpy().sum(-1)))


def operations(function, *args):
    """Return the names of the operations that torch runs for a call."""
    names = []

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Names():
        function(*args)
    return names


def in_chunks(program, x, z, chunk_size):
    """Return the log-density, and how many times Pyro ran the program for it."""
    runs = []

    def counted(x):
        runs.append(1)
        return program(x)

    with torch.no_grad(), pyro.validation_enabled(False):
        return ChunkedLogDensity(counted, chunk_size)(x, {"z": z}), len(runs)


@pytest.mark.parametrize("program", [normal, branching, leaving_torch])
def test_recorded_chunks_equal_the_program(program):
    z = torch.randn(200, 5, 1, generator=torch.Generator().manual_seed(0))
    got, runs = in_chunks(program, X, z, chunk_size=10)
    with torch.no_grad():
        expected = torch.cat([log_density(program, X, {"z": part}) for part in z.split(2)])
    assert torch.equal(got, expected)
    assert (runs < 20) == (program is normal)  # the others can't be recorded


def test_recording_does_not_import_a_compiler(run_code, tmp_path):
    code = "import sys, torch; from pyro_vae.compiled import record; record(torch.exp, torch.ones(1)); "
    assert run_code(code + "assert 'torch._dynamo' not in sys.modules", tmp_path) == Ended(0, "", "")


def test_a_record_draws_fresh_noise():
    noisy = record(lambda x: 2 * x + torch.randn(3), torch.zeros(3))
    assert not torch.equal(noisy(torch.zeros(3)), noisy(torch.zeros(3)))


def test_what_depends_on_no_input_is_computed_once():
    weight = torch.ones(1000)
    recorded = record(lambda x: x * weight.exp().log().sum(), torch.zeros(3))
    assert recorded(torch.ones(3)).tolist() == pytest.approx([1000.0] * 3)
    assert operations(recorded, torch.ones(3)) == ["mul.Tensor"]


def test_memory_is_written_over_only_where_nothing_needs_it():
    def function(x):
        a = x.exp()  # x is the caller's
        b = a + 1  # a is needed below
        c = (a * b).view(2, 2)
        d = c + c.T  # reads what it would write over
        return d * 2, b

    x = torch.rand(4)
    recorded = record(lambda x: torch.cat([part.flatten() for part in function(x)]), x.clone())
    y = torch.rand(4)
    assert torch.equal(recorded(y.clone()), torch.cat([part.flatten() for part in function(y)]))
    kept = y.clone()
    recorded(y)
    assert torch.equal(y, kept)
    assert "mul_.Tensor" in operations(recorded, y)


def test_a_sum_in_place_starts_anew_in_each_run():
    def function(x):
        total = torch.zeros(3)
        total += x
        return total

    again = record(function, torch.ones(3))
    assert [again(torch.full((3,), x)).tolist() for x in (1.0, 2.0)] == [[1.0] * 3, [2.0] * 3]


def test_what_is_changed_outside_is_as_before_and_then_changes_in_each_run():
    total = torch.zeros(3)
    again = record(lambda x: total.add_(x) * 1, torch.ones(3))
    assert total.tolist() == [0.0] * 3
    assert [again(torch.ones(3)).tolist() for _ in range(2)] == [[1.0] * 3, [2.0] * 3]


def test_a_function_that_looks_at_values_is_refused():
    with pytest.raises(NotRecordable, match="looks at the value of a tensor"):
        record(lambda x: x if x.sum() > 0 else -x, torch.ones(3))


def test_changes_in_place_are_recorded_in_their_order():
    def function(x):
        y = x.clone()
        half = y[:2]
        y.mul_(3)
        half.add_(1)  # nothing uses its result, but y has changed
        return y + x

    again = record(function, torch.ones(4))
    assert again(torch.arange(4.0)).tolist() == function(torch.arange(4.0)).tolist()


def test_a_record_is_of_the_very_weights_and_shape():
    torch.manual_seed(0)
    vae = build((1, 4, 4), latent_dim=3).eval()
    x, z = torch.rand(7, 16).round(), torch.randn(50, 7, 3)
    got, runs = in_chunks(vae.model, x, z, chunk_size=21)  # chunks of 3 samples, and 2 at the end
    assert runs < 20
    torch.testing.assert_close(got, log_density(vae.model, x, {"z": z}), rtol=1e-6, atol=1e-5)
