"""Arrays to pictures inside a page: SVG that takes its colours from the page's style, and PNG as data URIs.

Matplotlib's SVG has styles of its own: it would stay light in dark mode, and need them allowed.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup
from torch import Tensor

from pyro_vae.plotting import SMALL
from pyro_vae.plotting.figure import near

# As wide as a phone: larger pages set several side by side, so that the writing is never small.
WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 10, 40
MAX_POINTS = 400  # of a curve
COLOURS = 10  # of classes in style.css


class Chart:
    """Axes with ticks and names, as an SVG element to be drawn on."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        names: tuple[str, str],
        what: str,
        *,
        height: int = HEIGHT,
        integer_x: bool = False,
        y_ticks: bool = True,
    ):
        from matplotlib.ticker import MaxNLocator

        self.height = height
        self.svg = ElementTree.Element("svg", viewBox=f"0 0 {WIDTH} {height}", role="img")
        self.add("title").text = what
        self.x_range, self.y_range = _widened(x), _widened(y)
        if y_ticks:
            for tick in MaxNLocator(5).tick_values(*self.y_range):
                if self.y_range[0] <= tick <= self.y_range[1]:
                    at = self.y(tick)
                    self.add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, **{"class": "grid"})
                    self.text(LEFT - 6, at + 4, _tick(tick), "end")
        for tick in MaxNLocator(5, integer=integer_x).tick_values(*self.x_range):
            if self.x_range[0] <= tick <= self.x_range[1]:
                self.text(self.x(tick), height - BOTTOM + 16, _tick(tick), "middle")
        self.text((LEFT + WIDTH - RIGHT) / 2, height - 6, names[0], "middle")
        middle = (TOP + height - BOTTOM) / 2
        self.text(12, middle, names[1], "middle", transform=f"rotate(-90 12 {middle:g})")

    def x(self, value: float) -> float:
        """Return a value's place across."""
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return a value's place from the top."""
        low, high = self.y_range
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)

    def add(self, tag: str, **attributes: object) -> ElementTree.Element:
        """Add an element; numbers are rounded."""
        texts = {k: f"{v:.5g}" if isinstance(v, int | float) else str(v) for k, v in attributes.items()}
        return ElementTree.SubElement(self.svg, tag, texts)

    def text(self, x: float, y: float, text: str, anchor: str = "start", **attributes: object) -> None:
        """Write something."""
        self.add("text", x=x, y=y, **{"text-anchor": anchor, **attributes}).text = text

    def line(self, x: np.ndarray, y: np.ndarray, kind: str) -> None:
        """Draw a curve through the points that are finite and within the axes."""
        kept = np.isfinite(x) & (y >= self.y_range[0]) & (y <= self.y_range[1])
        points = [f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x[kept], y[kept], strict=True)]
        self.add("polyline", points=" ".join(points), **{"class": f"line {kind}"})

    def html(self) -> Markup:
        """Return the SVG for a page; whatever was written into it is escaped."""
        return Markup(ElementTree.tostring(self.svg, encoding="unicode"))


def _tick(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _widened(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def curves(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]], what: str, y_name: str, *, from_zero: bool = False
) -> Markup:
    """Draw curves over the epochs; the first tenth of the epochs doesn't set the scale.

    Args:
        lines: (x, y) of each curve, by the class that style.css colours.
        what: The picture's title.
        y_name: What is shown, with its unit.
        from_zero: Begin the vertical axis at 0.
    """
    lines = {kind: _thinned(x, y) for kind, (x, y) in lines.items()}
    settled = np.concatenate([y[len(y) // 10 :] for _, y in lines.values()])
    settled = settled[np.isfinite(settled)] if np.isfinite(settled).any() else np.zeros(1)
    low, high = settled.min(), settled.max()
    margin = 0.06 * (high - low)
    first, last = min(x[0] for x, _ in lines.values()), max(x[-1] for x, _ in lines.values())
    chart = Chart((first, last), (0 if from_zero else low - margin, high + margin), ("epoch", y_name), what)
    for kind, (x, y) in lines.items():
        chart.line(x, y, kind)
    return chart.html()


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.unique(np.linspace(0, len(x) - 1, MAX_POINTS).round().astype(int))
    return x[kept], y[kept]


def bars(values: Sequence[float], names: Sequence[str], dim: Sequence[bool], what: str, x_name: str) -> Markup:
    """Draw one bar below the other, with its name and its value; some are dimmed."""
    step = 18
    height = TOP + BOTTOM + step * len(values)
    chart = Chart((0, max(values) * 1.18), (0, 1), (x_name, ""), what, height=height, y_ticks=False)
    for i, (value, name, dimmed) in enumerate(zip(values, names, dim, strict=True)):
        top = TOP + i * step
        width = max(0.5, chart.x(max(value, 0)) - LEFT)
        chart.text(LEFT - 6, top + 13, name, "end")
        chart.add("rect", x=LEFT, y=top + 3, width=width, height=step - 5, **{"class": "bar dim" if dimmed else "bar"})
        chart.text(LEFT + width + 4, top + 13, f"{value:.3g}")
    return chart.html()


def scatter(
    points: np.ndarray,
    what: str,
    names: tuple[str, str],
    *,
    groups: np.ndarray | None = None,
    equal: bool = False,
    diagonal: bool = False,
    classes: Callable[[int], str] | None = None,
) -> Markup:
    """Draw points, (N, 2).

    Args:
        points: Where they are.
        what: The picture's title.
        names: Of the axes.
        groups: A whole number for each point, which colours it; written at the middle of each group.
        equal: Give both axes the same scale.
        diagonal: Draw the line on which both are the same.
        classes: The class in style.css of a group's points. Default: its colour.
    """
    height = HEIGHT + 90 if equal else HEIGHT
    low, high = points.min(0), points.max(0)
    margin = 0.05 * np.maximum(high - low, 1e-6)
    low, high = low - margin, high + margin
    if equal:
        inner = np.array([WIDTH - LEFT - RIGHT, height - TOP - BOTTOM])
        scale = ((high - low) / inner).max()
        low, high = (low + high - scale * inner) / 2, (low + high + scale * inner) / 2
    chart = Chart((low[0], high[0]), (low[1], high[1]), names, what, height=height)
    if diagonal:
        both = np.array([max(low), min(high)])
        chart.line(both, both, "other")
    for i, (x, y) in enumerate(points):
        kind = "" if groups is None else (classes or colour)(int(groups[i]))
        chart.add("circle", cx=chart.x(x), cy=chart.y(y), r=2.2, **{"class": f"point {kind}"})
    if groups is not None and classes is None:
        for group in np.unique(groups):
            x, y = np.median(points[groups == group], 0)
            chart.text(chart.x(x), chart.y(y) + 6, str(group), "middle", **{"class": "group"})
    return chart.html()


def colour(group: int) -> str:
    """Return the class in style.css of a group's colour; there are so many, then they come again."""
    return f"c{group % COLOURS}"


def histograms(columns: Mapping[str, np.ndarray], what: str, x_name: str, *, bins: int = 30) -> Markup:
    """Draw histograms over each other, by the class that style.css colours."""
    finite = {kind: values[np.isfinite(values)] for kind, values in columns.items()}
    everything = np.concatenate(list(finite.values()))
    everything = everything[near(everything)]
    low, high = np.quantile(everything, (0.002, 0.998)) if len(everything) else (0.0, 1.0)
    edges = np.linspace(*_widened((float(low), float(high))), bins + 1)
    parts = {k: np.histogram(v, edges)[0] / max(1, len(v)) for k, v in finite.items()}
    top = max(1e-9, *(part.max() for part in parts.values()))
    chart = Chart((edges[0], edges[-1]), (0, 1.05 * top), (x_name, "part"), what, height=180)
    for kind, part in parts.items():
        x, y = np.repeat(edges, 2), np.concatenate([[0], np.repeat(part, 2), [0]])
        chart.line(x, y, f"step {kind}")
    return chart.html()


def shares(names: Sequence[str], parts: Mapping[str, Sequence[float]], what: str, x_name: str) -> Markup:
    """Draw the share of each category in several tables: thin bars below its name, by the class that colours them."""
    step = 16 + 7 * len(parts)
    top = max(1e-9, *(max(values) for values in parts.values()))
    height = TOP + BOTTOM + step * len(names)
    chart = Chart((0, 1.05 * top), (0, 1), (x_name, ""), what, height=height, y_ticks=False)
    for i, name in enumerate(names):
        chart.text(LEFT, TOP + i * step + 10, name)
        for j, (kind, values) in enumerate(parts.items()):
            width = max(0.5, chart.x(values[i]) - LEFT)
            chart.add("rect", x=LEFT, y=TOP + i * step + 13 + 7 * j, width=width, height=6, **{"class": f"bar {kind}"})
    return chart.html()


def categories(
    names: Sequence[str], codes: Mapping[str, np.ndarray], what: str, x_name: str, *, most: int = 8
) -> Markup:
    """Draw the shares of the most frequent categories, whose positions among the names are given for each table."""
    parts = {kind: np.bincount(own, minlength=len(names)) / max(1, len(own)) for kind, own in codes.items()}
    total = np.sum(list(parts.values()), axis=0)
    shown = [k for k in np.argsort(-total, kind="stable")[:most] if total[k] > 0]
    return shares([names[k] for k in shown], {kind: part[shown].tolist() for kind, part in parts.items()}, what, x_name)


def sheet(images: Tensor, shape: Sequence[int], limits: tuple[float, float], *, columns: int = 1) -> str:
    """Return images, (N, C*H*W), as one PNG in a data URI, row by row.

    Args:
        images: Pixels; blanks (NaN) are drawn grey.
        shape: Shape of an image, (C, H, W).
        limits: The values drawn black and white.
        columns: Images in a row.
    """
    from PIL import Image

    channels, height, width = shape
    low, high = limits
    array = images.detach().cpu().float().numpy().reshape(-1, channels, height, width)
    array = np.nan_to_num((array - low) / max(high - low, 1e-12), nan=0.5).clip(0, 1)
    if max(height, width) <= SMALL:  # a person reads so few pixels more easily when they are drawn smoothly
        height, width = 4 * height, 4 * width
        larger = [
            np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))
            for plane in array.reshape(-1, *shape[1:])
        ]
        array = np.stack(larger).reshape(-1, channels, height, width).clip(0, 1)
    rows = -(-len(array) // columns)
    canvas = np.zeros((2, rows * (height + 1) - 1, columns * (width + 1) - 1, channels))  # pixels, and where there are
    for i, image in enumerate(array):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        canvas[0, top : top + height, left : left + width] = image.transpose(1, 2, 0)
        canvas[1, top : top + height, left : left + width] = 1
    pixels = canvas[0] if channels in (1, 3) else canvas[0][..., :1]
    with_gaps = np.concatenate([pixels, canvas[1][..., :1]], -1)  # the gaps let the page's background through
    picture = Image.fromarray((255 * with_gaps).round().astype(np.uint8), "LA" if pixels.shape[-1] == 1 else "RGBA")
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
