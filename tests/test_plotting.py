"""Pictures show names as they are written, and values as far as they can be seen together."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from pyro_vae import plotting
from pyro_vae.plotting.figure import near

pytestmark = pytest.mark.pictures

NAME = "price in $_$ or \\$x^{"  # which is no formula
X = np.random.default_rng(0).normal(size=(30, 3))
IMAGES = np.random.default_rng(0).random((6, 4, 4))
ROWS = [{"epoch": 1.0 + i, "loss": 3.0 - i, "elbo": i - 4.0, "reconstruction": -2.0, "kl": 1.0} for i in range(3)]
NAMES = {"names": [NAME, "b", "c"], "title": NAME}
BOUNDS = {NAME: (np.array([1, 2, 4]), np.array([-5.0, -4.5, -4.2]))}

DRAW = {
    "curves": lambda path, x: plotting.curves(ROWS, path, title=NAME, held_out=NAME),
    "evidence": lambda path, x: plotting.evidence(
        x[:, 0], path, bounds=BOUNDS, level=(-4.0, 0.1, NAME), quality=x[:, 1], quality_name=NAME,
        doubtful=x[:, 1] > 1, threshold=0.7, title=NAME,
    ),
    "image_grid": lambda path, x: plotting.image_grid(torch.tensor(IMAGES), (1, 4, 4), path, columns=3, title=NAME),
    "image_rows": lambda path, x: plotting.image_rows(
        IMAGES[None], path, row_names=[NAME], column_names=[NAME] * 6, title=NAME
    ),
    "image_plane": lambda path, x: plotting.image_plane(
        IMAGES.reshape(2, 3, 4, 4), path, across=np.arange(3.0), up=np.arange(2.0), title=NAME
    ),
    "completed_images": lambda path, x: plotting.completed_images(
        IMAGES, IMAGES[None], path, mean=IMAGES, sd=IMAGES, truth=None, row_names=[NAME] * 6, title=NAME
    ),
    "latent_map": lambda path, x: plotting.latent_map(
        x[:, :2], path, axes_names=(NAME, NAME), labels=np.arange(30) % 3, use=np.ones(2), use_name=NAME,
        active=np.ones(2, bool), title=NAME,
    ),
    "scores": lambda path, x: plotting.scores(
        x[:, 0], x[:, 1], path, p_value=np.linspace(0, 1, 30), flagged=np.arange(30) < 2, order=np.arange(30),
        title=NAME,
    ),
    "columns_compared": lambda path, x: plotting.columns_compared(
        torch.tensor(x), torch.tensor(X), path, label=NAME, **NAMES
    ),
    "columns_completed": lambda path, x: plotting.columns_completed(
        np.where(X > 1, np.nan, x), np.stack([X, x]), path, **NAMES
    ),
    "columns_scattered": lambda path, x: plotting.columns_scattered(x, X, path, label=NAME, x_label=NAME, **NAMES),
    "columns_along": lambda path, x: plotting.columns_along(
        X.reshape(3, 10, 3), np.arange(10.0), path, line_names=[NAME] * 3, t_name=NAME, **NAMES
    ),
    "columns_plane": lambda path, x: plotting.columns_plane(
        X.reshape(5, 6, 3), path, across=np.arange(6.0), up=np.arange(5.0), **NAMES
    ),
}  # fmt: skip
OF_VALUES = ("evidence", "latent_map", "scores", "columns_compared", "columns_completed", "columns_scattered")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written."""
    figures, savefig = [], Figure.savefig

    def saved(figure, *args, **options):
        figures.append(figure)
        return savefig(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", saved)
    return figures


def test_every_picture_is_drawn_here():
    assert DRAW.keys() == set(plotting.__all__) - {"SMALL"}


@pytest.mark.parametrize("name", DRAW)
def test_a_name_is_text_and_no_formula(name, tmp_path, drawn):
    DRAW[name](tmp_path / "drawn.png", X)
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")
    texts = drawn[0].findobj(Text)
    assert not any("mathdefault" in text.get_text() for text in texts)
    named = [text for text in texts if NAME in text.get_text()]
    assert named
    assert not any(text.get_parse_math() for text in named)
    assert matplotlib.rcParams["text.parse_math"]  # the user's own pictures are as they were


@pytest.mark.parametrize("far", [9.97e36, -np.inf])
@pytest.mark.parametrize("name", OF_VALUES)
def test_one_value_far_out_does_not_hide_the_others(name, far, tmp_path, drawn):
    x = X.copy()
    x[4, 0] = far
    DRAW[name](tmp_path / "drawn.png", x)
    axes = drawn[0].findobj(matplotlib.axes.Axes)[0]
    low, high = axes.get_xlim()
    assert -9 < low < -1 < 1 < high < 9
    if name in ("evidence", "latent_map", "scores"):
        assert "1 far out" in axes.get_title()


def test_what_is_drawn():
    values = np.append(np.random.default_rng(0).standard_t(3, size=1000), [np.nan, np.inf, -9999])
    assert near(values).tolist() == [True] * 1000 + [False] * 3
    assert near(np.array([7.0, 7, 7, 8])).all()
    assert not near(np.array([np.nan])).any()


def test_categories_and_dates_of_a_table_are_named_at_their_axes(drawn, tmp_path):
    x = torch.tensor([[0.0, 10.0, 1.5], [1.0, 20.0, 2.5], [2.0, 30.0, 3.5]])
    words = {0: ("ash", "beech", "a tree of a long name"), 1: lambda day: f"day {day:.0f}"}
    plotting.columns_compared(x, x, tmp_path / "a.png", names=["kind", "when", "size"], title="", label="", words=words)
    kind, when, size = ([tick.get_text() for tick in axes.get_xticklabels()] for axes in drawn[0].axes[:3])
    assert kind == ["ash", "beech", "a tree of a…"]
    assert when
    assert all(text.startswith("day ") for text in when)
    assert "2" in "".join(size)
    assert [len(axes.patches) - 1 for axes in drawn[0].axes[:2]] == [3, 5]  # bars, and a line
