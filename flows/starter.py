"""The lethe.toml that `lethe init` writes."""

from __future__ import annotations

from pathlib import Path

from infra.settings import ConfigError

STARTER = """\
# Lethe's one file of settings. Relative paths are taken from its folder. Check it with: lethe status

[lake]
root = "lake"                      # a folder, or s3://bucket/prefix (credentials from the AWS variables)
# sample_rows = 100000             # statistics come from a keyed sample of about so many rows

# A table is one or more raw files: CSV, TSV, JSON, Parquet, Arrow, text, images; also in .gz, .bz2, .zst, .zip and .tar.
# [tables.posts]
# source  = ["raw/posts/*.jsonl.gz"]
# subject = { kind = "author", column = "author_id" }   # whose data a row is: what `lethe forget --subject author=...` reaches
# text    = "body"                                      # the text column, for selection and text models
# types   = { zip = "string" }                          # also: separator, encoding, null_strings, columns, primary_key ...
# max_quarantine_fraction = 0.01                        # more bad rows than that, and nothing of the table is committed
# [tables.posts.contract]
# score   = { not_null = true, range = [0, 10] }        # a row that breaks a rule goes to quarantine, with the rule's name

# A collection makes every matching file a table of its own: exports/<its path without suffixes>
# [collections.exports]
# source = "raw/exports/**/*.csv"

# A dataset is what a model trains on: records of the pool that resemble the target, pruned.
# [datasets.support]
# pool   = ["posts"]
# target = "gold"                                       # tables to draw towards; also { gold = 3, faq = 1 }
# select = { keep_fraction = 0.3, near_duplicates = {}, filters = { word_count = [50, 100000] } }   # see Selection in the README
# prune  = { method = "density", keep_fraction = 0.7 }  # density | prototypes | random | none

# [models.support]
# dataset = "support"
# kind    = "text"                                      # text | tabular | image | "package.module:factory"
# label   = "topic"
# shards  = 4                                           # a deletion retrains one shard ...
# slices  = 4                                           # ... from the slice where the subject was first seen
"""


def write_starter(directory: Path) -> Path:
    """Write lethe.toml into a folder (made if needed). Raises `ConfigError` when there is one already."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "lethe.toml"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(STARTER)
    except FileExistsError:
        raise ConfigError(
            f"{path} exists already and was left as it is. Edit it, or name another folder: lethe init DIR"
        ) from None
    return path
