"""The `select` part of lethe.toml: what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.settings import ConfigError, Settings, load_settings

BASE = """
[tables.posts]
source = "posts.jsonl"
text = "body"
[tables.gold]
source = "gold.jsonl"
text = "body"
[tables.exam]
source = "exam.jsonl"
text = "body"
[datasets.d]
pool = ["posts"]
"""


def read(tmp_path: Path, more: str) -> Settings:
    (tmp_path / "lethe.toml").write_text(BASE + more, encoding="utf-8")
    return load_settings(tmp_path / "lethe.toml")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('target = ["gold", "gold"]', "a target is named twice: gold, gold"),
        ("target = { gold = 0 }", "greater than 0"),
        ('target = "silver"', "'silver' is not in"),
        ("select = { n_rows = 0 }", "greater than or equal to 1"),
        ("select = { keep_fraction = 0 }", "greater than 0"),
        ("select = { n_rows = 10, keep_fraction = 0.5 }", "keep_fraction and n_rows are both budgets"),
        ("select = { filters = { word_count = [9, 3] } }", "lower bound 9.0 is above the upper one 3.0"),
        ('select = { method = "score" }', "needs [score]"),
        ("select = { score = { threshold = 0.5 } }", "name one of the two"),
        ('select = { score = { column = "q", threshold = 0.5, percentile = 10 } }', "exclude each other"),
        ('select = { decontaminate = { tables = ["quiz"] } }', "'quiz' is not in"),
        ('select = { decontaminate = { tables = ["exam", "posts"] } }', "table 'posts' is in the pool as well"),
        ("select = { temprature = 1 }", "unknown key"),
        ('select = { method = "importance" }', "needs a target"),
        ('target = "gold"\nselect = { mode = "parity", method = "clusters" }', 'parity is a mode of method = "importance"'),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, more)
    assert said in str(error.value) and "lethe.toml:" in str(error.value)


def test_a_table_that_is_not_there_is_told_once_for_each_place_that_names_it(tmp_path: Path) -> None:
    asked = 'target = ["silver", "gold"]\n[datasets.d.select.decontaminate]\ntables = ["quiz", "quiz"]'
    with pytest.raises(ConfigError) as error:
        read(tmp_path, asked)
    first, second = str(error.value).splitlines()
    assert "lethe.toml:13: datasets.d.target: table 'silver'" in first
    assert "lethe.toml:15: datasets.d.select.decontaminate.tables: table 'quiz'" in second


def test_how_targets_may_be_named(tmp_path: Path) -> None:
    assert read(tmp_path, 'target = "gold"').dataset("d").target == {"gold": 1.0}
    assert read(tmp_path, 'target = ["gold", "exam"]').dataset("d").target == {"gold": 1.0, "exam": 1.0}
    assert read(tmp_path, "target = { exam = 3, gold = 1 }").dataset("d").target == {"exam": 3.0, "gold": 1.0}


def test_what_selection_does_follows_from_what_is_asked(tmp_path: Path) -> None:
    """Nothing: no selection. A step alone drops records, a budget alone draws some; a target ranks them; a score does where there
    is no target."""
    methods = {
        "": ("none", False, ()),
        "select = { seed = 3 }": ("none", False, ()),
        "select = { keep_fraction = 0.1 }": ("none", True, ()),
        "select = { n_rows = 10 }": ("none", True, ()),
        "select = { n_tokens = 10 }": ("none", True, ()),
        "select = { filters = { word_count = [3, 9] } }": ("none", True, ()),
        'target = "gold"': ("importance", True, ("gold",)),
        'select = { score = { column = "q" } }': ("score", True, ()),
        'target = "gold"\nselect = { score = { column = "q", threshold = 1 } }': ("importance", True, ("gold",)),
        'target = "gold"\nselect = { decontaminate = { tables = "exam" } }': ("importance", True, ("gold", "exam")),
    }
    for more, expected in methods.items():
        dataset = read(tmp_path, more).dataset("d")
        assert (dataset.method, dataset.selects, dataset.beside) == expected


def test_a_bound_may_be_open(tmp_path: Path) -> None:
    chosen = read(tmp_path, "select = { filters = { word_count = [50, inf], curly_bracket = [-inf, 0.1] } }").dataset("d").select
    assert chosen.filters == {"word_count": (50.0, None), "curly_bracket": (None, 0.1)}
    with pytest.raises(ConfigError, match="word_count"):
        read(tmp_path, "select = { filters = { word_count = [nan, 3] } }")
