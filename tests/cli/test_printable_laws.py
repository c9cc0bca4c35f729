"""Whatever others wrote, no terminal obeys it, and no line of it passes for one of ours."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso.cli import output
from stem_iso.printable import lines, one_line
from stem_iso.worker.reporting.log import TextFormatter

HOSTILE = st.text(st.one_of(st.characters(), st.sampled_from("\x1b\x07\r\n\t\b\x9b\u202e\u2066\u200f\u2028\x85\ud800\x0b\x1c")))
FORGED = "done\n2026-11-24 15:04:05.678 INFO    forged\r\x1b[2J"


def harmless(text: str) -> bool:
    control = any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in text)
    return not control and not set(text) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u2028\u2029")


@given(HOSTILE)
def test_a_field_is_one_harmless_line(text: str) -> None:
    assert harmless(one_line(text))
    one_line(text).encode()
    if text.isprintable():
        assert one_line(text) == text


@given(HOSTILE)
def test_further_lines_are_indented_and_harmless(text: str) -> None:
    first, *rest = lines(text).split("\n")
    assert harmless(first.replace("\t", ""))
    assert all(line.startswith("    ") and harmless(line.replace("\t", "")) for line in rest)
    assert len(rest) == text.count("\n")


@given(st.lists(HOSTILE, min_size=2, max_size=2), HOSTILE)
def test_tables_and_pairs_have_no_more_lines_than_rows(row: list[str], text: str) -> None:
    assert len(output.table(("A", "B"), [row]).split("\n")) == 2
    shown = output.pairs([("name", text), ("error", row[0])]).split("\n")
    assert all(harmless(line.replace("\t", "")) for line in shown)
    assert all(line.startswith(("name:", "error:", "    ")) for line in shown if line)


@pytest.mark.parametrize("error", [None, ValueError(FORGED)])
def test_no_record_forges_another(error: Exception | None) -> None:
    record = logging.LogRecord("any", logging.INFO, __file__, 1, "[%s %s] %s", (FORGED, "id", FORGED), error and (ValueError, error, None))
    first, *rest = TextFormatter().format(record).split("\n")
    assert " INFO    any: [done" in first
    assert rest
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in "".join(rest)
    assert "\r" not in "".join(rest)


def test_letters_of_all_languages_stay_as_they_are() -> None:
    for text in ("Ünïcödé", "日本語", "עברית", "emoji 🎉", "a\u3000b\u00a0c"):
        assert one_line(text) == lines(text) == text
