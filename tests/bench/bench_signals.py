"""Quality signals of real text: all of ours against the quality filters of datatrove, on the same documents and one core.

    python -m tests.bench.bench_signals

Ours is every signal of every document, from an Arrow column to a table of float32, and the verdicts of filters on them. Theirs is
Gopher quality, Gopher repetition, C4 quality and FineWeb quality one after the other, each over the documents that the one before
has passed, as in a pipeline, but without its readers and writers; C4's sentence splitting and Gopher's words are spaCy's. The
figures are MB of text per CPU second. datatrove lives in a virtual environment of its own, made on first use.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.kernels.signals import SIGNALS, signals_of
from tasks.select.filters import filtered
from tests.bench.bench_select import texts
from tests.bench.harness import Options, Row, environment, least_cpu_s, peer_python, print_parts, skipped, times, verdict

SOURCES = ("newsgroups20", "medquad", "target_product_reviews", "peps")
MESSAGES = "target_sms_spam"
MIX = "a mix"
MB = 6.0
LEAST_MB = 100.0
LEAST_RATIO = 7.0
THEIRS = "datatrove 0.10.1"
REQUIREMENTS = ("datatrove[io,processing]==0.10.1", "spacy")
FILTERS = {
    "word_count": (50.0, 100_000.0),
    "mean_word_length": (3.0, 10.0),
    "symbol_to_word_ratio": (None, 0.1),
    "frac_no_alph_words": (None, 0.2),
    "lines_start_with_bulletpoint": (None, 0.9),
    "frac_lines_end_with_ellipsis": (None, 0.3),
    "lorem_ipsum": (None, 0.0),
    "curly_bracket": (None, 0.0),
    "lines_ending_with_terminal_punctution_mark": (0.12, None),
    "frac_chars_top_2gram": (None, 0.20),
    "frac_chars_top_3gram": (None, 0.18),
    "frac_chars_top_4gram": (None, 0.16),
    "frac_chars_dupe_5grams": (None, 0.15),
    "frac_chars_dupe_10grams": (None, 0.10),
}

PEER = """
import json, sys, time
from loguru import logger
logger.remove()
from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
chain = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(), FineWebQualityFilter()]
texts = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
def passes(document):
    return all(one.filter(document) is True for one in chain)
for text in texts[:20]:
    passes(Document(text=text, id="0"))
start = time.process_time()
n = sum(passes(Document(text=text, id="0")) for text in texts)
print(json.dumps({"cpu_s": time.process_time() - start, "n_kept": n}))
"""


def theirs(python: str, documents: list[str]) -> tuple[float, int]:
    """CPU seconds of datatrove's filters, and how many documents pass them all."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "texts.jsonl"
        path.write_text("".join(json.dumps(text) + "\n" for text in documents), encoding="utf-8")
        done = subprocess.run([python, "-c", PEER, str(path)], capture_output=True, text=True, check=True, env=environment())
    found = json.loads(done.stdout.splitlines()[-1])
    return found["cpu_s"], found["n_kept"]


def shapes(options: Options) -> dict[str, list[str]]:
    """The mix, documents of the size of a text message, and the mix as one document."""
    place = options.data / "text"
    mix = [text for name in SOURCES for text in texts(place / f"{name}.jsonl.gz", int(MB * 1e6 / len(SOURCES)))]
    return {MIX: mix, "text messages": texts(place / f"{MESSAGES}.jsonl.gz", int(MB * 1e6)) * 6, "one document": ["\n".join(mix)]}


def ours(name: str, documents: list[str]) -> float:
    """MB a CPU second of our signals and the filters on them."""
    array, row_ids = pa.array(documents), np.arange(len(documents))
    mb = sum(len(text.encode()) for text in documents) / 1e6
    signals = signals_of(array)
    signals_s = least_cpu_s(lambda: signals_of(array))
    filters_s = least_cpu_s(lambda: filtered(row_ids, signals, FILTERS))
    n_kept = len(documents) - filtered(row_ids, signals, FILTERS).num_rows
    rate = mb / (signals_s + filters_s)
    print(f"{name}: {len(documents):,} documents, {mb:.1f} MB; one core; {len(SIGNALS)} signals")
    print(f"lethe: {mb / signals_s:.0f} MB/CPU s signals, {rate:.0f} with filters, {n_kept:,} documents pass")
    return rate


def rows(options: Options) -> list[Row]:
    """Ours against the target for each shape of document, and against datatrove."""
    documents = shapes(options)
    rates = {name: ours(name, some) for name, some in documents.items()}
    what = f"all {len(SIGNALS)} quality signals and filters on them, one core: MB a CPU s"
    own = [
        Row(f"{what}, {name}", f"{rate:.0f}", "-", "-", f">= {LEAST_MB:.0f}", verdict(rate >= LEAST_MB))
        for name, rate in rates.items()
    ]
    return own + [against(name, documents[name], rates[name]) for name in (MIX, "text messages")]


def against(name: str, documents: list[str], rate: float) -> Row:
    target = f">= {LEAST_RATIO:.0f}x"
    what = f"quality signals, {THEIRS} (Gopher quality and repetition, C4, FineWeb), one core: MB a CPU s, {name}"
    mb = sum(len(text.encode()) for text in documents) / 1e6
    try:
        peer_s, n_theirs = theirs(peer_python("datatrove", REQUIREMENTS), documents)
    except subprocess.CalledProcessError:
        return skipped(what, target, f"{THEIRS} could not be installed or run")
    print(f"{THEIRS}: {mb / peer_s:.2f} MB/CPU s, {n_theirs:,} documents pass")
    ratio = rate * peer_s / mb
    return Row(what, f"{rate:.0f}", f"{mb / peer_s:.2f}", times(rate, mb / peer_s), target, verdict(ratio >= LEAST_RATIO))


if __name__ == "__main__":
    print_parts([rows], __doc__)
