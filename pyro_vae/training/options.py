"""The options of a training, for the command line, :func:`pyro_vae.fit` and the checkpoint alike."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Options:
    """How to train.

    Args:
        epochs: How many times to go through the data. Default: 20, or as many more as make 5,000 steps.
        batch_size: How many data in each step. The last batch of an epoch may be smaller. Default: 128, or all the
            data where they are fewer.
        lr: Adam's learning rate, at the start.
        lr_schedule: "constant", or "cosine": down to zero over all epochs along half a cosine.
        clip_norm: Bound on the norm of the gradient for one datum (nats). Default: none.
        ema_decay: Average the weights over the steps, each step's share decaying at this rate
            (such as 0.999). The trained model then has the averaged weights. Default: no average.
        patience: Stop when the validation ELBO has not risen for so many epochs, and keep the weights of the best
            epoch; 0 trains to the end and keeps the last weights. Default: a fifth of the epochs, at least 20, where
            there are validation data and nothing but the ELBO is maximised; otherwise 0.
        seed: Of the order of the data and of all noise.
        device: "cpu", "cuda", …; "auto" takes a GPU where there is one, in several processes one for each.
        precision: Of the factors of matrix products in training: "float32", or "bfloat16", which is faster where the
            processor has it; with a warning, float32 where torch does not round. Sums, results and all else are in the
            precision of the weights.
        compile: Record what the objective computes in the first step, and run that in the steps after it (see
            :class:`pyro_vae.compiled.CompiledELBO`): "on", "off", or "auto", where that can be done and the objective
            is one of Pyro's or ours.
        classifier_weight: Of the mean of log q(y|x) over the known labels, for each datum, of a ``ConditionalVAE``: its
            classifier learns from known labels by this alone. Kingma et al.'s alpha.

    Raises:
        ValueError: For sizes and rates that make no sense.

    Example:
        >>> Options(lr=2e-3).for_data(1000).epochs
        625
    """

    epochs: int | None = None
    batch_size: int | None = None
    lr: float = 1e-3
    lr_schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: float | None = None
    ema_decay: float | None = None
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: Literal["auto", "on", "off"] = "auto"
    classifier_weight: float = 1.0

    def __post_init__(self) -> None:
        def require(name: str, holds: bool, expected: str) -> None:
            if not holds:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)}")

        require("batch_size", self.batch_size is None or self.batch_size >= 1, "at least 1")
        require("epochs", self.epochs is None or self.epochs >= 1, "at least 1")
        require("lr", 0 < self.lr < math.inf, "a positive number")
        require("lr_schedule", self.lr_schedule in ("constant", "cosine"), '"constant" or "cosine"')
        require("clip_norm", self.clip_norm is None or self.clip_norm > 0, "a positive number")
        require("ema_decay", self.ema_decay is None or 0 < self.ema_decay < 1, "a number between 0 and 1")
        require("patience", self.patience is None or self.patience >= 0, "at least 0")
        require("precision", self.precision in ("float32", "bfloat16"), '"float32" or "bfloat16"')
        require("compile", self.compile in ("auto", "on", "off"), '"auto", "on" or "off"')
        require("classifier_weight", 0 <= self.classifier_weight < math.inf, "a number of at least 0")

    def for_data(self, size: int) -> "Options":
        """Return the same with the numbers of epochs and of data in a batch that are meant for ``size`` data.

        Raises:
            ValueError: When a batch would be larger than the data.
        """
        batch_size = min(128, size) if self.batch_size is None else self.batch_size
        if batch_size > size:
            raise ValueError(f"batch_size: expected at most the number of training data, {size}, got {batch_size}")
        epochs = max(20, math.ceil(5000 / math.ceil(size / batch_size))) if self.epochs is None else self.epochs
        return replace(self, epochs=epochs, batch_size=batch_size)

    def check_goes_on(self, earlier: dict[str, Any]) -> None:
        """Refuse to go on with a training of other options: only ``device`` may change, and ``epochs`` be more.

        Args:
            earlier: The options that it was begun with, by name.

        Raises:
            ValueError: Naming the option.
        """
        for name, own in earlier.items():
            wanted = getattr(self, name, own)
            more_epochs = name == "epochs" and own is not None and (wanted or 0) > own
            if name == "device" or wanted == own or (more_epochs and self.lr_schedule == "constant"):
                continue
            why = ", which the cosine schedule depends on" if more_epochs else ""
            raise ValueError(f"{name}: {wanted} contradicts {own}, which the training was begun with{why}")
