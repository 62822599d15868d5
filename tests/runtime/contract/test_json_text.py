"""JSON of files: what has no end, and what only Python takes for JSON, is refused before anything is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from glimmer_export.runtime.contract import StoreError
from glimmer_export.runtime.contract.json_text import MAX_CONTAINERS, MAX_DEPTH, parse_json
from glimmer_export.runtime.contract.records import read_json, record_from_json


@dataclass(frozen=True)
class Record:
    """A field of each kind."""

    number: int
    share: float
    name: str


def test_values_that_nest_as_deep_as_may_be_are_read():
    value = parse_json("[" * MAX_DEPTH + '{"a": "b"}' + "]" * MAX_DEPTH)
    for _ in range(MAX_DEPTH):
        (value,) = value
    assert value == {"a": "b"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nest deeper"),
        ('{"a":' * 500 + "1" + "}" * 500, "nest deeper"),
        ("[" * 100_000, "nest deeper"),
        ("[" + "[]," * MAX_CONTAINERS + "[]]", "lists and objects"),
        ("9" * 5000, "5000 digits"),
        ('{"a": 1', "Expecting"),
    ],
    ids=lambda value: value[:12],
)
def test_what_has_no_end_is_refused(text, found):
    with pytest.raises(ValueError, match=found):
        parse_json(text)


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ('"number": 1, "number": 2, "share": 1, "name": "a"', "the key 'number' twice"),
        (f'"number": {1 << 63}, "share": 1, "name": "a"', "more than 64 bits"),
        (f'"number": 1, "share": {"9" * 400}, "name": "a"', "more than 64 bits"),
        ('"number": 1, "share": NaN, "name": "a"', "NaN"),
        ('"number": 1, "share": -Infinity, "name": "a"', "-Infinity"),
        ('"number": 1, "share": 1e400, "name": "a"', "1e400"),
        ('"number": 1, "share": 1, "name": "\\ud83d"', "a lone surrogate"),
        ('"number": 1, "share": 1, "name": "a", "\\uDe00": 1', "a lone surrogate"),
    ],
)
def test_a_file_of_ours_holds_numbers_and_text_that_can_be_written(tmp_path: Path, field, found):
    path = tmp_path / "record.json"
    path.write_text("{" + field + "}", encoding="utf-8")
    with pytest.raises(StoreError, match=found):
        read_json(path, error=StoreError, fix="")


def test_the_greatest_numbers_and_a_pair_of_surrogates_are_read(tmp_path: Path):
    path = tmp_path / "record.json"
    path.write_text('{"number": -0, "share": 9223372036854775807, "name": "\\ud83d\\ude00"}', encoding="utf-8")
    data = read_json(path, error=StoreError, fix="")
    record = record_from_json(Record, data, error=StoreError, subject="record", fix="")
    assert record == Record(0, (1 << 63) - 1, "\U0001f600")


def test_another_program_s_lines_may_hold_what_python_writes():
    assert parse_json('{"score": Infinity, "a": 1, "a": 2}') == {"score": float("inf"), "a": 2}
