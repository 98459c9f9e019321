"""Files of a model and of a training under way: safetensors, never pickle."""

import contextlib
import json
import os
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from pyro_vae.build import build
from pyro_vae.machine.facts import check_facts
from pyro_vae.machine.files import named, subfolder, write_file
from pyro_vae.machine.memory import at_most
from pyro_vae.machine.reading import check_file
from pyro_vae.machine.trust import check_names
from pyro_vae.runs.folder import CONFIG, MODEL, STATE
from pyro_vae.vae import VAE

if TYPE_CHECKING:
    from pyro_vae.training.loop import Training

FLOATS = {torch.float32, torch.float64}
HALVES = {torch.bfloat16, torch.float16}  # which most parts can't compute in
# What is written of a model, see `build`.
FACTS: dict[str, Any] = {
    "x_shape": ([int],),
    **dict.fromkeys(("prior", "encoder", "likelihood"), (str, dict)),
    "latent_dim": (int,),
    **dict.fromkeys(("network", "activation", "pixels"), (str,)),
    "hidden_dims": ([int],),
    "levels": (int, None),
    "missing": (bool,),
    "num_classes": (int, None),
    "classes": ([str], None),
    "table": (dict, None),
    "label_in": ([str], None),
}


def save(vae: VAE, path: str | os.PathLike) -> None:
    """Write a VAE's weights, and how it was built, into one file.

    Args:
        vae: The VAE. One put together by hand, rather than by :func:`pyro_vae.build`, is saved with its
            weights alone; ``load`` then needs another one like it to put them into.
        path: The file, or a run folder. The file is replaced as a whole or not at all.

    Example:
        >>> import tempfile, pyro_vae
        >>> vae = pyro_vae.build((1, 4, 4), latent_dim=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(vae, folder)
        ...     again = load(folder)
        >>> torch.equal(vae.decoder[0].weight, again.decoder[0].weight)
        True
    """
    path = named(path)
    config = vae.config.as_arguments() if vae.config.parts else None
    write_file(path / MODEL if path.is_dir() else path, _as_bytes(vae.state_dict(), config))


def load(path: str | os.PathLike, vae: VAE | None = None, *, trust: Sequence[str] = ()) -> VAE:
    """Return the VAE that ``save``, or a training run, has written.

    The file holds no code, but it may name parts in modules of others. Such a module is imported, which runs it, only
    if it is in ``trust``; a part that the program has imported already is used as it is.

    Args:
        path: A run folder, or a file.
        vae: Put the weights into this one, instead of building one.
        trust: Modules, such as ["mymodule"], that the file may have imported, with those below them.

    Returns:
        The VAE, on the CPU, in evaluation mode, equal to the saved one to the last bit; in float64 if all of that is,
        else in float32.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When it is not such a file, or doesn't fit.
    """
    path = Path(path)
    if path.is_dir() and not (path / MODEL).exists():
        go_on = f"its training isn't finished; wait for it, or go on with --resume {shlex.quote(str(path))}"
        why = go_on if (path / CONFIG).exists() else "it is no run folder"
        raise FileNotFoundError(f"{path} holds no {MODEL}: {why}")
    path = path / MODEL if path.is_dir() else path
    config, shapes = _read_header(path)
    if vae is None:
        if config is None:
            raise ValueError(f"{path} holds a VAE put together by hand: build one like it, and pass it as vae=...")
        check_names(str(path), check_facts(str(path), config, **FACTS), trust)
        vae = _build(path, config)
    _check_fit(path, vae.state_dict(), shapes)
    tensors = _read_tensors(path)
    _check_types(path, vae.state_dict(), tensors, FLOATS | HALVES)
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    vae.to(torch.float64 if dtypes == {torch.float64} else torch.float32)
    vae.load_state_dict(tensors)
    for name, parameter in vae.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(f"{path}: {name}: expected finite weights, got NaN or infinity; train again")
    return vae.eval()


def identity(run: Path) -> tuple[int, ...]:
    """Return what tells the model file of a run from any that takes its place; nothing where there is none."""
    try:
        status = (run / MODEL).stat()
    except FileNotFoundError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def checkpoint_folder(run: Path) -> Path:
    """Return the folder of the run's checkpoint, to write into.

    Raises:
        ValueError: When it is a link.
    """
    return subfolder(run, Path(STATE).parent.name)


@contextlib.contextmanager
def no_larger_than(path: Path) -> Iterator[None]:
    """Build, inside, no model that takes more memory than a file of its weights explains.

    They may be in half precision, and building takes up to three times a model's own size, where the priors of classes
    are brought together.

    Raises:
        ValueError: When it would.
    """
    _, shapes = _read_header(path)
    try:
        with at_most(8 * check_file(path) + 2**24, num_operations=100 * (len(shapes) + 20)):
            yield
    except MemoryError:
        raise ValueError(
            f"{path} belongs to another model: the one that is described would be larger than its {len(shapes)} "
            f"tensors in {path.stat().st_size:,} bytes"
        ) from None


def state_as_bytes(state: tuple[dict[str, Tensor], dict[str, Any]]) -> bytes:
    """Return the content of a checkpoint: what ``state_dict`` of a training gives."""
    return _as_bytes(*state)


def load_training(training: "Training", run: Path) -> None:
    """Go on from the checkpoint in the run folder, which may lie in the middle of an epoch.

    Raises:
        FileNotFoundError: When the run folder holds no checkpoint.
        ValueError: When it is truncated, or belongs to another model.
    """
    path = run / STATE
    facts, shapes = _read_header(path)
    weights = {name.removeprefix("weights/"): shape for name, shape in shapes.items() if name.startswith("weights/")}
    _check_fit(path, training.vae.state_dict(), weights)
    tensors = _read_tensors(path)
    _check_types(path, training.vae.state_dict(), tensors, FLOATS)
    try:
        training.load_state_dict(tensors, facts)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no checkpoint of this training ({error!r})") from error


def _build(path: Path, config: dict[str, Any]) -> VAE:
    """Build the VAE that a file describes."""
    try:
        with no_larger_than(path), torch.random.fork_rng([]):
            return build(**config)
    except (TypeError, RuntimeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} doesn't describe a VAE: {str(error).splitlines()[0]}") from error


def _check_fit(path: Path, expected: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> None:
    for name in sorted(expected.keys() | shapes.keys()):
        want = tuple(expected[name].shape) if name in expected else "nothing"
        if want != shapes.get(name, "nothing"):
            raise ValueError(
                f"{path} belongs to another model: for {name} expected {want}, got {shapes.get(name, 'nothing')}"
            )


def _check_types(
    path: Path, expected: dict[str, Tensor], tensors: dict[str, Tensor], floats: Collection[torch.dtype]
) -> None:
    """Refuse weights, and what belongs to them as "…/NAME", of other floating-point types than these."""
    for name, tensor in tensors.items():
        own = expected.get(name.rpartition("/")[2], tensor)
        kinds = floats if own.is_floating_point() else {own.dtype}
        if tensor.dtype not in kinds:
            raise ValueError(f"{path}: {name}: expected {' or '.join(sorted(map(str, kinds)))}, got {tensor.dtype}")


def _as_bytes(tensors: dict[str, Tensor], facts: Any) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return to_bytes(tensors, {"pyro_vae": json.dumps(facts)})


def _read_header(path: Path) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """Return what ``_as_bytes`` was given, but of the tensors their shapes alone."""
    check_file(path)
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            facts = (file.metadata() or {})["pyro_vae"]
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated, or no safetensors file ({error})") from error
    except KeyError as error:
        raise ValueError(f"{path} is a safetensors file, but none of pyro_vae's") from error
    try:
        return json.loads(facts), shapes
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has a broken description ({error})") from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
