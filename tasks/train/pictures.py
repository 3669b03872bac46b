"""The figures of a run, drawn without a display and without pyplot's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def learning_curves(losses: Mapping[int, Sequence[float]]) -> Figure:
    """Mean training loss (nats) of every epoch, one line a shard."""
    figure, axes = _canvas("epoch", "training loss (nats)", "Learning curves")
    for shard, values in sorted(losses.items()):
        axes.plot(range(1, len(values) + 1), values, linewidth=1, label=f"shard {shard}")
    if 0 < len(losses) <= 12:
        axes.legend(fontsize=7)
    return figure


def divergences(values: Mapping[str, float]) -> Figure:
    """KL divergence to the target (bits or nats as given) of the raw pool, the selected rows and a random choice."""
    figure, axes = _canvas("", "KL divergence to the target", "Distance to the target")
    axes.bar(list(values), list(values.values()))
    return figure


def cluster_sizes(sizes: Sequence[int]) -> Figure:
    """Rows of each cluster, largest first."""
    figure, axes = _canvas("cluster (by size)", "rows", "Cluster sizes")
    ordered = sorted(sizes, reverse=True)
    axes.bar(range(len(ordered)), ordered)
    return figure


def _canvas(x: str, y: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title)
    return figure, axes
