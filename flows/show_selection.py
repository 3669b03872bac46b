"""A selection as a document (for --json) and as a short text (for people): its figures, a record explained, records shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from flows import select_documents as d
from flows.show_parts import grid, harmless, ran

if TYPE_CHECKING:
    from tasks.select.explain import Decision
    from tasks.select.explain_task import Sample, Why
    from tasks.select.review_task import Review
    from tasks.select.task import SelectResult

_MOST_WARNINGS, _MOST_LINES = 5, 12
_EXCERPT = re.compile(r"\.\.\. \([0-9,]+ characters\)$")  # how a text ends that was cut before it came here
_MOST = 60  # tables that are printed; the rest is in the page and in --json
_COUNTED = ("budget", "n_tokens", "n_by_reason", "n_by_signal", "by_source", "targets")
_FIGURES = (*_COUNTED, "seed_overlap", "n_drawn_on", "n_sample", "threshold", "advised_keep_fraction")
_RANKED = ("kept", "below_threshold")  # what becomes of records that no step drops before they are ranked
_DECIDED = ("row_id", "keep", "reason", "log_weight", "key", "target", "signal", "value", "bound", "representative")

# --- documents -----------------------------------------------------------------------------------------------------------------


def selected(result: SelectResult | None, name: str, report: Path | None = None) -> d.SelectDocument:
    """The document of a selection; one of no records where a dataset selects nothing."""
    if result is None:
        return d.SelectDocument(dataset=name, n_raw=0, n_kept=0, kl_reduction=0.0, seconds=0.0)
    figures = {name: result.figures[name] for name in _FIGURES if result.figures.get(name) is not None}
    document = d.SelectDocument(
        dataset=result.dataset,
        n_raw=result.n_raw,
        n_kept=result.n_kept,
        kl_reduction=result.kl_reduction,
        seconds=result.seconds,
        found=result.found,
        random_kl_reduction=result.random_kl_reduction,
        effective_sample_size=result.effective_sample_size,
        length_correlation=result.length_correlation,
        version=result.snapshot.version,
        digest=result.snapshot.digest,
        warnings=list(result.warnings),
        report=str(report or ""),
    )
    return d.SelectDocument.model_validate({**document.model_dump(), **figures})


def explained(why: Why) -> d.SelectDocument:
    """One record, and no selection."""
    document = d.SelectWhyDocument(
        **_of_decision(why.decision),
        table=why.table,
        said=why.said,
        text=why.text,
        n_copies=why.n_copies,
        noise=why.noise,
        threshold=why.threshold,
        weights=[d.Weighed.model_validate(one) for one in why.weights],
        shared=[d.Shared.model_validate(one) for one in why.shared],
        representative_text=why.representative,
        is_old=why.is_old,
    )
    return _alone(why.dataset).model_copy(update={"why": document})


def sampled(dataset: str, kept: list[Sample], dropped: list[Sample], report: Path | None = None) -> d.SelectDocument:
    """Some records, and no selection."""
    samples = d.SamplesDocument(kept=[_record(one) for one in kept], dropped=[_record(one) for one in dropped])
    return _alone(dataset).model_copy(update={"samples": samples, "report": str(report or "")})


def reviewed(found: Review, report: Path | None = None) -> d.SelectDocument:
    """Records near to evaluation items, and no selection."""
    near = d.NeighboursDocument.model_validate(found)
    return _alone(found.dataset).model_copy(update={"neighbours": near, "report": str(report or "")})


def _alone(dataset: str) -> d.SelectDocument:
    return d.SelectDocument(dataset=dataset, n_raw=0, n_kept=0, kl_reduction=None, seconds=0.0)


def _record(sample: Sample) -> d.SelectedRecord:
    return d.SelectedRecord(**_of_decision(sample.decision), table=sample.table, said=sample.said, text=sample.text)


def _of_decision(decision: Decision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in _DECIDED}


# --- texts ---------------------------------------------------------------------------------------------------------------------


def selection_lines(doc: d.SelectDocument) -> list[Any]:
    """A document for a person: lines and tables for rich."""
    if doc.why is not None:
        return _why(doc.why)
    if doc.samples is not None:
        return _samples(doc.samples, doc.report)
    if doc.neighbours is not None:
        return _neighbours(doc.neighbours, doc.dataset, doc.report)
    if not doc.n_raw and doc.version is None:
        return [f"dataset {doc.dataset} has no target, no score, no budget and no step to select by: all of its records go on"]
    return [_head(doc), *_dropped(doc), *_quality(doc), *_targets(doc), *_sources(doc), *_notes(doc)]


def _head(doc: d.SelectDocument) -> str:
    random = "" if doc.random_kl_reduction is None else f" (random choice: {doc.random_kl_reduction:+.4f})"
    nearer = "" if doc.kl_reduction is None else f"; kl_reduction {doc.kl_reduction:+.4f}{random}"
    tokens = "" if doc.n_tokens is None else f", {doc.n_tokens:,} tokens"
    budget = f" (asked for: {said})" if (said := asked_for(doc.budget, doc.n_by_reason)) else ""
    kept = f"kept {doc.n_kept:,} of {doc.n_raw:,} records{tokens}{budget}{nearer}"
    return f"select {doc.dataset}: {kept}; {ran(doc.found, doc.seconds)}"


def asked_for(budget: Mapping[str, float], n_by_reason: Mapping[str, int]) -> str:
    """The budget in words, nothing where it is all there is. A share is one of what no step before the ranking dropped."""
    n_ranked = sum(n_by_reason.get(end, 0) for end in _RANKED)
    told = {"n_rows": "{:,.0f} records", "n_tokens": "{:,.0f} tokens"}
    share = budget.get("keep_fraction", 1.0)
    shares = [f"{100 * share:.4g} % of the {n_ranked:,} that no step before dropped"] if share < 1 else []
    return "; ".join([*shares, *(told[name].format(value) for name, value in budget.items() if name in told)])


def is_ranked(effective_sample_size: float | None, n_sample: int | None) -> bool:
    """Whether any record weighs more than another; where none does, a budget is met by the noise alone."""
    return not effective_sample_size or not n_sample or effective_sample_size < (1 - 1e-9) * n_sample


def _dropped(doc: d.SelectDocument) -> list[str]:
    """How many records which step dropped, in one line."""
    by_signal = ", ".join(f"{escape(name)} {n:,}" for name, n in _falling(doc.n_by_signal))
    said = [
        f"{reason} {n:,}" + (f" ({by_signal})" if reason == "filtered" and by_signal else "")
        for reason, n in _falling(doc.n_by_reason)
        if reason != "kept"
    ]
    return ["dropped: " + "; ".join(said)] if said else []


def _falling(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _quality(doc: d.SelectDocument) -> list[str]:
    said = list[str]()
    if not is_ranked(doc.effective_sample_size, doc.n_sample):
        return ["drawn at random: there is nothing to rank by"] if doc.n_by_reason.get("below_threshold") else []
    if doc.n_drawn_on is not None and doc.n_sample:
        said.append(f"drawn out of {min(100 * doc.n_drawn_on / doc.n_sample, 100):.0f} % of what no step before dropped")
    if doc.length_correlation is not None:
        said.append(f"correlation of weight with length {doc.length_correlation:+.2f}")
    if doc.seed_overlap is not None:
        said.append(f"another seed keeps {100 * doc.seed_overlap:.0f} % of the same records")
    advised = (
        []
        if doc.advised_keep_fraction is None
        else [
            f"for a training of planned_epochs over what is kept now, {doc.advised_keep_fraction:.2f} of the tokens are advised"
        ]
    )
    return [*(["; ".join(said)] if said else []), *advised]


def _targets(doc: d.SelectDocument) -> list[Any]:
    rows = [
        (escape(name), f"{100 * one.share:.0f} %", one.kept, *map(_nats, (one.kl_raw, one.kl_random, one.kl_selected)))
        for name, one in doc.targets.items()
    ]
    return ["", grid("target share kept kl_raw kl_random kl_selected", rows)] if len(rows) > 1 else []


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _sources(doc: d.SelectDocument) -> list[Any]:
    if len(doc.by_source) < 2:
        return []
    rows = [(escape(name), one.raw, one.kept, _share(one), _mostly(one)) for name, one in doc.by_source.items()]
    rows.sort(key=lambda row: row[2] / max(row[1], 1))
    more = [f"and {len(rows) - _MOST:,} more tables"] if len(rows) > _MOST else []
    return ["", grid("table records kept share reason", rows[:_MOST]), *more]


def _share(source: d.SourceKept) -> str:
    return f"{100 * source.kept / max(source.raw, 1):.1f} %"


def _mostly(source: d.SourceKept) -> str:
    """The most frequent reason of loss."""
    return next((f"{reason} {n:,}" for reason, n in _falling(source.reasons)), "")


def _notes(doc: d.SelectDocument) -> list[str]:
    report = [f"all figures: {doc.report}"] if doc.report else []
    more = (
        [f"and {len(doc.warnings) - _MOST_WARNINGS:,} more warnings, on the page"] if len(doc.warnings) > _MOST_WARNINGS else []
    )
    return [*(f"[bold]WARNING[/bold] {escape(said)}" for said in doc.warnings[:_MOST_WARNINGS]), *more, *report]


# --- records -------------------------------------------------------------------------------------------------------------------


def _why(why: d.SelectWhyDocument) -> list[Any]:
    copies = f", {why.n_copies} copies" if why.n_copies > 1 else ""
    old = ["The n-gram counts have moved on since this selection, and the weights below with them: lethe select"]
    return [
        escape(f"record {why.row_id} of table {why.table}{copies}"),
        escape(why.said),
        *_key(why),
        *(old if why.is_old else []),
        *(line for one in why.weights for line in _weighed(one)),
        *(escape(f"shares {one.n_words:,} words with {one.table}: {harmless(one.text)}") for one in why.shared),
        *(["", escape(f"in its place: {harmless(why.representative_text)}")] if why.representative_text is not None else []),
        "",
        *_read(why.text),
    ]


def _key(why: d.SelectWhyDocument) -> list[str]:
    if why.key is None or why.log_weight is None or why.noise is None:
        return []
    threshold = "all candidates are kept" if why.threshold is None else f"threshold {why.threshold:.4f}"
    return [f"log weight {why.log_weight:+.4f}, noise {why.noise:+.4f}: key {why.key:.4f}; {threshold}"]


def _weighed(one: d.Weighed) -> list[Any]:
    if not (one.up or one.down):
        return []
    head = f"for target {one.target}: log weight {one.log_weight:+.4f} from {one.n_tokens:,} tokens"
    grams = [(escape(harmless(gram.text)), gram.n, f"{gram.contribution:+.4f}") for gram in (*one.up, *reversed(one.down))]
    return ["", escape(head), grid("n-gram times nats", grams)]


def _read(text: str) -> list[str]:
    """A record's text in its own lines, as far as a person reads for one glance."""
    lines = [line for line in text.splitlines() if line.strip()]
    whole = _EXCERPT.search(text)
    more = [f"  {whole[0] if whole else f'... ({len(text):,} characters)'}"] if len(lines) > _MOST_LINES else []
    return [*(escape(f"  {harmless(line)}") for line in lines[:_MOST_LINES]), *more]


def _neighbours(near: d.NeighboursDocument, dataset: str, report: str) -> list[Any]:
    if not near.pairs:
        return [f"no record of {dataset} lies near to an evaluation item: one of the two has no text"]
    whole = f"{near.n_pairs:,} pairs of {near.n_items:,} evaluation items, and in {near.n_kept:,} of them the record is kept"
    head = f"{whole}; {len(near.pairs):,} of them, kept ones before others, the most similar first"
    if not report:
        rows = [(f"{one.similarity:.3f}", str(one.row_id), one.reason, escape(one.table), str(one.item)) for one in near.pairs]
        return [
            head,
            grid("similarity row_id reason table item", rows),
            f"their texts: lethe select {dataset} --neighbours --samples",
        ]
    shown = [f"{head} (they may hold personal data)"]
    for one in near.pairs:
        shown += [escape(f"\n{one.similarity:.3f}: item {one.item} of {one.table}"), *_read(one.item_text or "")]
        shown += [escape(f"and record {one.row_id}, {one.reason}"), *_read(one.text or "")]
    return [*shown, "", _private(report)]


def _private(report: str) -> str:
    return f"as a page, which forgetting removes: {report}"


def _samples(samples: d.SamplesDocument, report: str) -> list[Any]:
    shown = list[str]()
    for title, records in (("kept", samples.kept), ("dropped", samples.dropped)):
        shown.append(f"[bold]{title}: {len(records)} records[/bold] (they may hold personal data)")
        for one in records:
            shown += [escape(f"\n{one.row_id}, {one.table}: {one.said}"), *_read(one.text)]
        shown.append("")
    return [*shown, *([_private(report)] if report else [])]
