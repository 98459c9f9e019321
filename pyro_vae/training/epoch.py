"""An epoch under way, which can be left and taken up again in its middle."""

import time
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Epoch:
    """How far an epoch has come.

    Attributes:
        order: The order of the data in it, (N,).
        step: How many steps were taken.
        total: The sum of their losses, in nats.
        seconds_before: How long they took until it was left.
        random: The random numbers to take it up with, as :func:`pyro_vae.machine.devices.random_states` gave them;
            empty once they are in use.
    """

    order: Tensor
    step: int = 0
    total: float = 0.0
    seconds_before: float = 0.0
    random: dict[str, Tensor] = field(default_factory=dict)
    start: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """How long it has taken until now."""
        return self.seconds_before + time.perf_counter() - self.start
