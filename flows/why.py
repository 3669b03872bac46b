"""Why one table is contained in another or not: `lethe dedup --why CHILD PARENT`. Nothing is written."""

from __future__ import annotations

from prefect import flow

from flows.progress import say
from flows.workspace import opened
from tasks.dedup.why_task import WhyResult, why_task


@flow(name="why", persist_result=False, validate_parameters=False)
def why(child: str, parent: str, config: str = "lethe.toml") -> WhyResult:
    """The step that settles a pair of tables, and its witness."""
    with opened(config, shared=True) as work:
        say("dedup: why")
        return why_task(work.settings, child, parent, scheduler=work.scheduler)
