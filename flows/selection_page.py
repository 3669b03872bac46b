"""A selection as a page: its figures for a browser, and sampled records where a person asks for them.

The page of figures holds counts, names of tables, targets and signals; nothing that is in a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from flows.select_documents import SelectDocument
from flows.selection_charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    ORDER,
    RIGHT,
    TOP,
    WIDTH,
    Part,
    in_order,
    length_chart,
    parts_of,
    waterfall,
    weight_chart,
)
from flows.show_selection import asked_for, is_ranked
from tasks.select.report_figures import LENGTH_EDGES

_MAX_SOURCES = 1_000


@dataclass(frozen=True)
class Figure:
    """A number of the summary, and what it means in plain words."""

    label: str
    value: str
    said: str


@dataclass(frozen=True)
class Distance:
    """How far records are from a target, in nats, and as a share of the longest bar."""

    who: str
    nats: float
    share: float


@dataclass(frozen=True)
class TargetShown:
    """A target: what was asked for it, what it got, and its distances."""

    name: str
    share: float
    kept: int
    distances: tuple[Distance, ...]


@dataclass(frozen=True)
class SourceShown:
    """A table of the pool; `alarm` is `lost` where nothing of it is left, `low` where less than half of the pool's share is."""

    name: str
    n_raw: int
    n_kept: int
    parts: tuple[Part, ...]
    alarm: str


def page_name(dataset: str) -> str:
    """The page's file name; `/` in a dataset's name becomes `+`, which no name has."""
    return f"selection-{dataset.replace('/', '+')}.html"


# --- the page ------------------------------------------------------------------------------------------------------------------


def page(dataset: str, figures: Mapping[str, Any]) -> str:
    """The page of a selection's figures as one HTML document that needs nothing else."""
    sources = sources_of(figures)
    return _render(
        "selection.html",
        dataset=dataset,
        figures=figures_of(figures),
        warnings=figures.get("warnings", []),
        targets=targets_of(figures),
        weights=weight_chart(figures.get("weight_hist", {}), compared=bool(figures.get("targets"))) if _ranked(figures) else None,
        lengths=length_chart(figures.get("length_hist", {}), LENGTH_EDGES),
        steps=waterfall(figures.get("n_by_reason", {}), figures.get("n_by_signal", {})),
        sources=sources[:_MAX_SOURCES],
        n_left_out=max(len(sources) - _MAX_SOURCES, 0),
        ends=in_order({part.end for source in sources for part in source.parts}),
        known=("kept", *ORDER),
        names={"raw": "the pool", "selected": "the selection", "target": "the target"},
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=RIGHT,
        top=TOP,
        bottom=BOTTOM,
    )


def samples_page(document: SelectDocument) -> str:
    """The page of sampled records, with their texts."""
    return _render("selection_samples.html", dataset=document.dataset, samples=document.samples)


def neighbours_page(document: SelectDocument) -> str:
    """The page of records near to evaluation items, with their texts."""
    return _render("selection_neighbours.html", dataset=document.dataset, near=document.neighbours)


def _render(template: str, **what: Any) -> str:
    environment = Environment(
        loader=PackageLoader("flows"),
        autoescape=select_autoescape(["html", "svg"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda n: f"{n:,}"
    environment.filters["percent"] = percent
    return environment.get_template(template).render(**what)


def percent(share: float) -> str:
    """A share that is neither rounded up to the whole nor down to nothing."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{int(1000 * share + 0.5) / 10 if share < 0.999 else int(1000 * share) / 10:g} %"


def figures_of(figures: Mapping[str, Any]) -> list[Figure]:
    """The summary in numbers; what is not known is left out."""
    of_weights = (_nearer, _sample_size, _drawn_on, _by_length, _by_chance) if _ranked(figures) else (_at_random,)
    return [figure for make in (_kept, *of_weights, _advised) if (figure := make(figures)) is not None]


def _ranked(figures: Mapping[str, Any]) -> bool:
    return is_ranked(figures.get("effective_sample_size"), figures.get("n_sample"))


def _kept(figures: Mapping[str, Any]) -> Figure:
    n_raw, n_kept = figures.get("n_raw", 0), figures.get("n_kept", 0)
    tokens = f"; {figures['n_tokens']:,} tokens" if figures.get("n_tokens") else ""
    asked = f"; asked for: {said}" if (said := asked_for(figures.get("budget", {}), figures.get("n_by_reason", {}))) else ""
    return Figure("records kept", f"{n_kept:,}", f"of {n_raw:,} ({percent(n_kept / max(n_raw, 1))}){tokens}{asked}")


def _nearer(figures: Mapping[str, Any]) -> Figure | None:
    gain, random = figures.get("kl_reduction"), figures.get("random_kl_reduction")
    if gain is None:
        return None
    control = "" if random is None else f"; a random choice: {random:+.3f}"
    verdict = "nearer to the target than the pool" if gain > 0 else "no nearer to the target than the pool"
    return Figure("kl_reduction", f"{gain:+.3f}", f"nats an n-gram, held out: {verdict}{control}")


def _sample_size(figures: Mapping[str, Any]) -> Figure | None:
    size, n_sample = figures.get("effective_sample_size"), figures.get("n_sample")
    if size is None or not n_sample:
        return None
    said = f"of {n_sample:,} sampled: so many would carry the weights, were records drawn again and again"
    return Figure("effective sample size", f"{size:,.0f}", said)


def _drawn_on(figures: Mapping[str, Any]) -> Figure | None:
    found, n_sample = figures.get("n_drawn_on"), figures.get("n_sample")
    if found is None or not n_sample:
        return None
    said = "of what no step before dropped: each is drawn once; the nearer to the share kept, the less the noise decides"
    return Figure("drawn out of", percent(min(found / n_sample, 1.0)), said)


def _at_random(figures: Mapping[str, Any]) -> Figure | None:
    if not figures.get("n_by_reason", {}).get("below_threshold"):
        return None
    return Figure("drawn", "at random", "there is nothing to rank by: a keyed draw, the same in every run")


def _advised(figures: Mapping[str, Any]) -> Figure | None:
    found = figures.get("advised_keep_fraction")
    if found is None:
        return None
    return Figure(
        "advised share", percent(found), "of the tokens, for a training as long as planned_epochs over what is kept now"
    )


def _by_length(figures: Mapping[str, Any]) -> Figure | None:
    found = figures.get("length_correlation")
    if found is None:
        return None
    favoured = (
        "neither short nor long records are" if abs(found) < 0.1 else "long records are" if found > 0 else "short records are"
    )
    return Figure("weight and length", f"{found:+.2f}", f"correlation: {favoured} favoured")


def _by_chance(figures: Mapping[str, Any]) -> Figure | None:
    found = figures.get("seed_overlap")
    if found is None:
        return None
    return Figure("seed overlap", percent(found), "of the kept would be kept with another seed too; the rest is chance")


def targets_of(figures: Mapping[str, Any]) -> list[TargetShown]:
    """The targets in the order of their shares, with their distances on one scale."""
    named = (("the pool", "kl_raw"), ("as many at random", "kl_random"), ("the selection", "kl_selected"))
    targets: Mapping[str, Mapping[str, Any]] = figures.get("targets", {})
    longest = max((t[key] for t in targets.values() for _, key in named if t.get(key) is not None), default=0) or 1
    return [
        TargetShown(
            name,
            float(t["share"]),
            int(t["kept"]),
            tuple(Distance(who, t[key], max(t[key], 0) / longest) for who, key in named if t.get(key) is not None),
        )
        for name, t in sorted(targets.items(), key=lambda item: (-item[1]["share"], item[0]))
    ]


def sources_of(figures: Mapping[str, Any]) -> list[SourceShown]:
    """The pool's tables, those that keep the least share first."""
    overall = figures.get("n_kept", 0) / max(figures.get("n_raw", 0), 1)
    shown = [
        SourceShown(name, s["raw"], s["kept"], parts_of(s["raw"], s["kept"], s["reasons"]), _alarm(s["raw"], s["kept"], overall))
        for name, s in figures.get("by_source", {}).items()
    ]
    return sorted(shown, key=lambda s: (s.n_kept / max(s.n_raw, 1), -s.n_raw, s.name))


def _alarm(n_raw: int, n_kept: int, overall: float) -> str:
    if n_raw and not n_kept:
        return "lost"
    return "low" if n_kept < overall * n_raw / 2 else ""
