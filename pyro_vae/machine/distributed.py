"""Several processes train one model: each takes a share of every batch, and their gradients are summed.

``torchrun --nproc-per-node N -m pyro_vae.train …`` starts them; of ``evaluate``, each takes a share of the data. In a
script of one's own, call ``torch.distributed.init_process_group()`` before :func:`pyro_vae.fit`.
"""

import contextlib
import datetime
import functools
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# How long to wait for a process that doesn't answer. When one ends, its connections close, which gloo notices at once;
# the minutes are for reading data, or for a machine that was asleep. nccl notices nothing but that time has passed.
PATIENCE = {"gloo": datetime.timedelta(minutes=10), "nccl": datetime.timedelta(seconds=30)}


class ProcessLost(ConnectionError):
    """Another of the processes ended, or doesn't answer."""


class Processes:
    r"""The processes of a training, which hold the same weights and see the same data.

    The loss of a batch is a sum over its data, so that the gradients of the shares of P processes add up to the
    gradient of the batch,

    .. math:: \nabla \sum_{i \in B} \ell_i = \sum_{p=1}^P \nabla \sum_{i \in B_p} \ell_i, \qquad B = \bigcup_p B_p .

    An objective that takes a mean over the batch inside of a nonlinear function, as free bits do, takes it over the
    share.

    Args:
        device: Where the weights are. Its processes talk through gloo on CPUs and nccl on GPUs.

    Attributes:
        rank: Which of the processes this is, from 0.
        size: How many they are, P.

    Example:
        >>> alone = Processes(torch.device("cpu"))
        >>> alone.size, alone.share(torch.arange(3))
        (1, (tensor([0, 1, 2]), 1.0))
    """

    def __init__(self, device: torch.device):
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if _joined() else (0, 1)
        self.device = device

    @functools.cached_property
    def _group(self) -> Any:
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        with _noticing_losses():
            return dist.new_group(backend=backend, timeout=PATIENCE[backend])

    def leave(self) -> None:
        """Close the connections, so that a process that still waits for this one gives up."""
        if "_group" in self.__dict__:
            dist.destroy_process_group(self.__dict__.pop("_group"))

    def share(self, rows: Tensor) -> tuple[Tensor, float]:
        """Return this process's part of a batch, and what it counts in the sum.

        A batch smaller than the number of processes is taken by each of them as a whole, and counts as their mean.
        """
        if len(rows) < self.size:
            return rows, 1 / self.size
        return rows.tensor_split(self.size)[self.rank], 1.0

    @torch.no_grad()
    def sum(self, tensors: Sequence[Tensor], weight: float = 1.0) -> None:
        """Replace each tensor by the weighted sum of those of all processes, in one exchange."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors]).mul_(weight)
        with _noticing_losses():
            dist.all_reduce(flat, group=self._group)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def any(self, holds: bool) -> bool:
        """Return whether something holds in any of the processes."""
        count = torch.tensor([float(holds)], device=self.device)
        self.sum([count])
        return count.item() > 0

    @torch.no_grad()
    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of the first process."""
        if self.size == 1:
            return
        for tensor in tensors:
            with _noticing_losses():
                dist.broadcast(tensor, 0, group=self._group)

    def agree(self, number: int) -> bool:
        """Return whether a number is the same in all processes."""
        if self.size == 1:
            return True
        extremes = torch.tensor([number, -number], device=self.device)
        with _noticing_losses():
            dist.all_reduce(extremes, dist.ReduceOp.MAX, group=self._group)
        return extremes[0].item() == -extremes[1].item()


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the other processes, where ``torchrun`` has started several; all but the first stay silent."""
    if not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys() or int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    # A lost process is then an error of the collective that waits for it, instead of the end without a word.
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    dist.init_process_group("gloo", timeout=PATIENCE["gloo"])
    with contextlib.ExitStack() as stack:
        stack.callback(dist.destroy_process_group)
        if threading.current_thread() is threading.main_thread():
            stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _end))
        if not is_first():
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield


def is_first() -> bool:
    """Return whether this process is the one that writes and speaks."""
    return rank() == 0


@contextlib.contextmanager
def as_one() -> Iterator[None]:
    """Do something in all processes or in none: a mistake that one meets ends all, and the first says it in one line.

    The first goes ahead, so that the others find what it has downloaded.

    Raises:
        ValueError: In the first process, for what went wrong in another one alone.
        SystemExit: In the others, for what went wrong in the first.
    """
    if not _joined():
        yield
        return
    first = is_first()
    if not first:
        status = from_first(None)
        if status is not None:
            raise SystemExit(status)
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
    if first:
        from_first(None if failure is None else exit_status(failure))
        if failure is not None:
            raise failure
    outcomes: list[Any] = [None] * dist.get_world_size()
    with _noticing_losses():
        dist.all_gather_object(outcomes, None if failure is None else str(failure))
    wrong = next((rank for rank, outcome in enumerate(outcomes) if outcome is not None), None)
    if wrong is not None and first:
        raise ValueError(f"process {wrong}: {outcomes[wrong]}")
    if wrong is not None:
        raise SystemExit(2) from failure


def from_first(value: Any) -> Any:
    """Return the first process's value in all of them."""
    if not _joined():
        return value
    values = [value]
    with _noticing_losses():
        dist.broadcast_object_list(values, 0)
    return values[0]


def own_share(x: Tensor) -> tuple[Tensor, int]:
    """Return this process's part of the data, and where it begins; of one process, all of them.

    Raises:
        ValueError: When there are fewer data than processes.
    """
    if not _joined():
        return x, 0
    if len(x) < dist.get_world_size():
        raise ValueError(f"expected at least one example for each of {dist.get_world_size()} processes, got {len(x)}")
    parts = x.tensor_split(dist.get_world_size())
    return parts[dist.get_rank()], sum(len(part) for part in parts[: dist.get_rank()])


def gathered(part: Tensor) -> Tensor:
    """Return the parts of all processes, one after the other."""
    if not _joined():
        return part
    parts: list[Any] = [None] * dist.get_world_size()
    with _noticing_losses():
        dist.all_gather_object(parts, part.cpu())
    return torch.cat(parts).to(part.device)


def rank() -> int:
    """Return which of the processes this is, from 0."""
    return dist.get_rank() if _joined() else 0


def own_gpu(device: torch.device) -> torch.device:
    """Return the GPU of this process: of several on one machine, each has its own.

    Raises:
        ValueError: When there are fewer of them than processes, or one of them was chosen for all.
    """
    if not _joined():
        return device
    rank, count = int(os.environ.get("LOCAL_RANK", dist.get_rank())), torch.cuda.device_count()
    if rank >= count:
        raise ValueError(
            f"device: expected a GPU for each process, but this machine has {count}; "
            "start fewer processes, or add --device cpu"
        )
    if device.index not in (None, rank):
        raise ValueError(f"device: each process takes a GPU of its own; expected cuda, got {device}")
    return torch.device("cuda", rank)


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextlib.contextmanager
def _noticing_losses() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        what = "has not answered in time" if "imed out" in str(error) else "ended"
        raise ProcessLost(f"another process {what}") from error


def _end(*_: Any) -> None:
    raise ProcessLost("told to end, as torchrun tells all processes when one of them ends")


def exit_status(error: BaseException) -> int:
    """Return the status that a program ends with: 2 for what its user or a file can mend, 1 for what was tried in vain.

    That is a computation whose numbers are not finite, for which the memory is too small, or whose processes are lost.
    What nobody has foreseen is a fault of the program, with the status that sysexits.h has for it, 70.
    """
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, ZeroDivisionError | OverflowError):  # nobody says by these that a result isn't finite
        return 70
    if isinstance(error, ArithmeticError | ProcessLost) or out_of_memory(error):
        return 1
    return 2 if isinstance(error, ValueError | OSError) else 70


def out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be had; of the CPU's, torch tells by its words alone."""
    told = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    return told or isinstance(error, MemoryError | torch.OutOfMemoryError)
