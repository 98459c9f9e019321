"""A run as one HTML page that needs nothing but itself."""

import base64
import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pyro_vae.data.source import far_out
from pyro_vae.equations import check as check_equations
from pyro_vae.inference.latent import encode
from pyro_vae.machine.reading import read_json
from pyro_vae.runs.folder import CONFIG, SUMMARY
from pyro_vae.runs.opening import load_run, some_data
from pyro_vae.runs.page import columns, content
from pyro_vae.runs.page.facts import settings

__all__ = ["report"]

HERE = Path(__file__).parent
NUM_CHECKED, NUM_GRADIENTS = 32, 50  # a few seconds' work


def report(
    run: str | os.PathLike,
    *,
    check: bool = True,
    seed: int = 0,
    label: str | int | None = None,
    trust: Sequence[str] = (),
) -> str:
    """Return a run as an HTML page: its figures, pictures and settings, and an explorer of its latent space.

    The page asks for nothing from anywhere, and its security policy forbids that it could. What the run's files
    say is escaped. Its explorer decodes z in the browser.

    Args:
        run: The run folder.
        check: Check the equations of the derivation on some test data, which takes a few seconds.
        seed: Of the samples that are shown.
        label: Of a conditional run: the class y, as the data call it, for P(X | Y = y).
        trust: Modules of the run's parts that may be imported, as in :func:`pyro_vae.load`.

    Returns:
        The page.

    Raises:
        FileNotFoundError: When it is no run folder, its training isn't finished, or it keeps none of its data and they
            are gone.
        ValueError: When a file of it is not what it should be, or its data have changed.

    Example:
        >>> import tempfile
        >>> from pyro_vae.commands.train import main as train
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train(["--epochs", "1", "--hidden_dims", "[8]", "--latent_dim", "2", "--run", f"{folder}/run"])
        ...     page = report(f"{folder}/run", check=False)
        data ...
        >>> page[:15]
        '<!DOCTYPE html>'
    """
    run = Path(run)
    vae = load_run(run, label, trust=trust)
    if not (run / SUMMARY).exists():
        raise FileNotFoundError(f"{run / SUMMARY} doesn't exist: the training isn't finished; go on with --resume")
    summary = read_json(run / SUMMARY)
    dataset = some_data(run, vae, content.EXAMPLES)
    if len(dataset.shape) == 1 and (far := far_out(dataset.test).any(1)).any():
        dataset = dataset.where({"test": ~far})  # whose codes would squeeze all others
        warnings.warn(f"{int(far.sum()):,} test rows with values far out are left out of the page", stacklevel=2)
    x = dataset.test[: content.EXAMPLES]
    if len(x) == 0:
        raise ValueError(f"--label {label}: {dataset.name} has no test data of this class, which a page is about")
    labels = None if dataset.labels is None else dataset.labels["test"][: len(x)]
    latents = encode(vae, x, seed=seed)
    if not latents.loc.isfinite().all():
        raise ValueError(f"{run}: the encoder puts out numbers that are not finite; train again")
    rows, notes = content.check_rows(
        check_equations(vae, dataset.test[:NUM_CHECKED], num_gradients=NUM_GRADIENTS) if check else []
    )
    is_image = len(dataset.shape) == 3
    counts = content.counts(summary, dataset)
    held_out = "training data" if counts["validation"] == "0" else "validation data"
    return render(
        "template.html",
        name=run.resolve().name,
        model=content.introduction(vae, summary, dataset, counts),
        explorer=content.explorer(vae, dataset, latents, labels, seed),
        images=content.images(vae, dataset, seed) if is_image else None,
        table=None if is_image else columns.table(vae, dataset, seed, content.EXAMPLES),
        curves=content.training_curves(run, held_out),
        latent=content.latent_space(latents, labels),
        legend=content.legend(labels, dataset.classes),
        evaluation=content.evaluation(run),
        check={"rows": rows, "notes": notes, "num_data": min(NUM_CHECKED, len(dataset.test))},
        settings=settings(run / CONFIG),
        versions=content.versions(summary),
    )


def render(template: str, /, **values: object) -> str:
    """Fill in a template. Whatever isn't marked as HTML is escaped, and only our own script and style may run."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "explorer.js"))
    return environment.get_template(template).render(
        style=Markup(style), script=Markup(script), style_hash=_hash(style), script_hash=_hash(script), **values
    )


def _hash(text: str) -> str:
    """Return what a Content-Security-Policy calls an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
