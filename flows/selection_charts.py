"""The charts of a selection's page in pixels: outlines of histograms, and bars of what each step dropped. No text of a record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

WIDTH, HEIGHT = 900.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 10.0, 40.0
_MOST_TICKS = 12
ORDER = ("too_short", "empty_text", "no_score", "filtered", "contaminated", "duplicate", "near_duplicate", "below_threshold")


@dataclass(frozen=True)
class Outline:
    """One histogram as a line of steps; `name` is one of raw, selected, target."""

    name: str
    path: str
    n: int


@dataclass(frozen=True)
class Tick:
    """A mark on an axis, at a pixel."""

    at: float
    words: str


@dataclass(frozen=True)
class Column:
    """The room of one bin, and what a pointer on it is told."""

    x: float
    width: float
    words: str


@dataclass(frozen=True)
class Chart:
    """Histograms over the same bins, each as shares of its own records."""

    outlines: tuple[Outline, ...]
    ticks: tuple[Tick, ...]
    levels: tuple[Tick, ...]
    columns: tuple[Column, ...]
    axis: str


@dataclass(frozen=True)
class Step:
    """A bar of the waterfall: `start` and `width` are shares of all records; `kind` is all, dropped or kept, `end` the reason."""

    name: str
    end: str
    n: int
    start: float
    width: float
    kind: str


@dataclass(frozen=True)
class Part:
    """A part of a source's bar: the share of its records that came to one end."""

    end: str
    n: int
    share: float


# --- histograms ----------------------------------------------------------------------------------------------------------------


def weight_chart(hist: Mapping[str, Sequence[float]], *, compared: bool = True) -> Chart | None:
    """The log weights of all, of the selected and of the target's records; None where none is known. `compared`: they are towards
    targets, else standardised scores."""
    edges = list(hist.get("edges", ()))
    counts = {name: list(map(int, hist[name])) for name in ("raw", "selected", "target") if sum(hist.get(name, ()))}
    if not counts or not edges:
        return None
    said = [f"below {edges[0]:.6g}", *(f"{a:.6g} to {b:.6g}" for a, b in pairwise(edges)), f"from {edges[-1]:.6g}"]
    marks = [(place + 1, f"{edge:.6g}") for place, edge in _round_ones(edges)]
    towards = "log weight (nats a token, where weights are means): how much more the target says it"
    return _chart(counts, said, marks, towards if compared else "standardised score: the better, the farther right")


def _round_ones(edges: Sequence[float]) -> list[tuple[int, float]]:
    """The places and values of evenly spaced edges that are multiples of a round number, 0 among them where it is there."""
    step = edges[1] - edges[0] if len(edges) > 1 else 1.0
    first = round(edges[0] / step)
    every = next(n for n in (digit * 10**power for power in range(9) for digit in (1, 2, 5)) if len(edges) <= n * _MOST_TICKS)
    return [(place, (first + place) * step) for place in range(len(edges)) if (first + place) % every == 0]


def length_chart(hist: Mapping[str, Sequence[int]], edges: Sequence[int]) -> Chart | None:
    """The tokens of all, of the selected and of the target's records, in bins of half an octave; None where none is known."""
    counts = {name: list(hist[name]) for name in ("raw", "selected", "target") if sum(hist.get(name, ()))}
    if not counts:
        return None
    known = [place for place in range(len(edges)) if any(row[place] for row in counts.values())]
    low, high = known[0], known[-1] + 1
    said = [f"{a:,} tokens" if b == a + 1 else f"{a:,} to {b - 1:,} tokens" for a, b in pairwise(edges)]
    said = [*said, f"from {edges[-1]:,} tokens"][low:high]
    marks = [(place - low, f"{edges[place]:,}") for place in range(low, high) if edges[place].bit_count() <= 1]
    return _chart({name: row[low:high] for name, row in counts.items()}, said, marks, "tokens of a record")


def _chart(counts: Mapping[str, list[int]], said: Sequence[str], marks: Sequence[tuple[int, str]], axis: str) -> Chart:
    """`said` has the words of each bin, `marks` names the lower bounds of some by their number."""
    shares = {name: [n / sum(row) for n in row] for name, row in counts.items()}
    highest = max(max(row) for row in shares.values())
    step = (WIDTH - LEFT - RIGHT) / len(said)
    every = max(1, -(-len(marks) // _MOST_TICKS))
    return Chart(
        tuple(Outline(name, _outline(row, step, highest), sum(counts[name])) for name, row in shares.items()),
        tuple(Tick(LEFT + place * step, words) for place, words in marks[::every]),
        tuple(Tick(_height(level, highest), f"{100 * level:.3g} %") for level in _levels(highest)),
        tuple(Column(LEFT + i * step, step, f"{words}: {_told(shares, i)}") for i, words in enumerate(said)),
        axis,
    )


def _outline(shares: Sequence[float], step: float, highest: float) -> str:
    """A line of steps over the bins, from the axis back to it."""
    said = [f"M{LEFT:.1f} {_height(0, highest):.1f}"]
    for i, share in enumerate(shares):
        said.append(f"V{_height(share, highest):.1f}H{LEFT + (i + 1) * step:.1f}")
    return "".join(said) + f"V{_height(0, highest):.1f}"


def _height(share: float, highest: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share / highest


def _levels(highest: float) -> list[float]:
    """Up to four round levels below the highest share."""
    power = 10.0**-12
    while 10 * power <= highest:
        power *= 10
    step = next(digit * power for digit in (0.2, 0.5, 1, 2, 5) if highest / (digit * power) <= 5)
    return [step * i for i in range(1, int(highest / step) + 1)]


def _told(shares: Mapping[str, Sequence[float]], place: int) -> str:
    return ", ".join(f"{name} {100 * row[place]:.2g} %" for name, row in shares.items())


# --- bars ----------------------------------------------------------------------------------------------------------------------


def waterfall(n_by_reason: Mapping[str, int], n_by_signal: Mapping[str, int]) -> tuple[Step, ...]:
    """All records, what each step dropped of them in turn (a filter a bar), and those kept."""
    total = sum(n_by_reason.values())
    if not total:
        return ()
    ends = [(name, end, n) for end in _lost(n_by_reason) for name, n in _split(end, n_by_reason[end], n_by_signal)]
    left = accumulate((-n for *_, n in ends), initial=total)
    dropped = [
        Step(name, end, n, (rest - n) / total, n / total, "dropped") for (name, end, n), rest in zip(ends, left, strict=False)
    ]
    kept = n_by_reason.get("kept", 0)
    return (Step("all records", "", total, 0.0, 1.0, "all"), *dropped, Step("kept", "kept", kept, 0.0, kept / total, "kept"))


def in_order(ends: Iterable[str]) -> list[str]:
    """What became of records: kept first, then the reasons of loss in the order of the steps; unknown ones before the last."""
    rank = {end: place for place, end in enumerate(("kept", *ORDER))}
    return sorted(ends, key=lambda end: (rank.get(end, len(ORDER) - 0.5), end))


def _lost(n_by_reason: Mapping[str, int]) -> list[str]:
    return in_order(reason for reason in n_by_reason if reason != "kept")


def _split(reason: str, n: int, n_by_signal: Mapping[str, int]) -> list[tuple[str, int]]:
    if reason != "filtered" or sum(n_by_signal.values()) != n:
        return [(reason.replace("_", " "), n)]
    return [(f"filter: {signal}", found) for signal, found in sorted(n_by_signal.items(), key=lambda item: (-item[1], item[0]))]


def parts_of(n_raw: int, n_kept: int, reasons: Mapping[str, int]) -> tuple[Part, ...]:
    """A source's records by how they ended, those kept first."""
    ends = [("kept", n_kept), *((reason, reasons[reason]) for reason in _lost(reasons))]
    return tuple(Part(end, n, n / max(n_raw, 1)) for end, n in ends if n)
