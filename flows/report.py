"""The demonstration's report: one HTML page of what each stage did, without scripts and without anything fetched from
elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from flows.documents import DemoStep
from flows.graph import PICTURE
from tasks.forget.certificate import contents


def write_report(directory: Path, facts: Mapping[str, Any], steps: Sequence[DemoStep]) -> Path:
    """Write `report.html` from the flows' results; returns its path."""
    environment = Environment(loader=PackageLoader("flows"), autoescape=select_autoescape(["html"]), undefined=StrictUndefined)
    environment.filters["short"] = lambda digest: str(digest).split(":")[-1][:12]
    environment.filters["thousands"] = lambda n: f"{n:,}"
    certificate = Path(facts["forgotten"].certificates[0].path)
    page = environment.get_template("report.html").render(
        **facts,
        picture=(directory / "reports" / PICTURE).read_text(encoding="utf-8"),
        steps=steps,
        certificate=certificate,
        proof=json.dumps(contents(certificate.read_bytes()), indent=2, sort_keys=True),
        widest=max((max(c.prune.cluster_sizes, default=0) for c in facts["curated"]), default=0) or 1,
    )
    path = directory / "report.html"
    path.write_text(page, encoding="utf-8")
    return path
