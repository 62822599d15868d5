"""Rows are parsed one by one, whatever pieces the file comes in; what has no end is named."""

from __future__ import annotations

import gzip
import io
import json
import random
from random import randbytes

import pytest

from glimmer_export.calibration import json_rows as module
from glimmer_export.calibration.json_rows import json_rows
from glimmer_export.calibration.questions import read_questions
from glimmer_export.calibration.text_files import MAX_BLANK_LINES, MAX_UNPACKED_RATIO, MIN_UNPACKED_BYTES
from glimmer_export.runtime.contract import QuestionFileError

ROWS = [{"question": "who, [or] {what}?", "n": number, "é": "\u65e5\U0001f600" * number} for number in range(40)]
ROWS += [1, 2.5, 'a"]', [], {}, None, True, [[1], {"a": []}]]


def rows(content: bytes, most: int | None = None):
    return list(json_rows(io.BytesIO(content), "file", most=lambda: 1 << 40 if most is None else most, fix="mend it"))


@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}])
def test_an_array_in_pieces_is_what_it_is_in_one(monkeypatch, layout):
    content = ("\ufeff \n" + json.dumps(ROWS, **layout) + "\n").encode()
    for chunk in (1, 7, 64, 1 << 20):
        monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
        found = rows(content)
        assert [value for _, value in found] == ROWS
        assert found[4][0] == "file, row 5"
    assert rows(b"[ ]") == []


def test_lines_are_what_they_are_alone():
    content = "\n\n".join(["", *(json.dumps(row) for row in ROWS[:40])]).encode()
    found = rows(content)
    assert [value for _, value in found] == ROWS[:40]
    assert found[1][0] == "file, line 5"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'[{"a": 1}', "Expecting ',' delimiter or the array's end: line 1"),
        (b'[{"a": 1},\n]', "Expecting value: line 2"),
        (b'[{"a": 1}\n\n{"a": 2}]', "Expecting ',' delimiter: line 3"),
        (b'[{"a": 1}]\n[2]', "Extra data: line 2"),
        (b'[\n{"a": 1},\n{"a" 2}]', "Expecting ':' delimiter: line 3"),
        (b'["\xff"]', "UTF-8"),
        (b'[{"a": "\xe2\x82', "UTF-8"),
        (b'[1, {"a": ["\\ud83d"]}]', "file, row 2: expected text that UTF-8 can write, found a lone surrogate"),
        (b'{"a": 1}\n{"\\ude00": 1}\n', "file, line 2: expected text that UTF-8 can write, found a lone surrogate"),
        (b"[" * 100_000, "nest deeper"),
        (b'{"a": 1}\n' + b"[" * 100 + b"]" * 100, "file, line 2: expected JSON, found values that nest deeper"),
        (b"\n" * (MAX_BLANK_LINES + 2), "blank lines"),
        (b'{"a": 1}\n' + b" \n" * (MAX_BLANK_LINES + 2), "blank lines"),
    ],
    ids=lambda value: value[:12],
)
def test_what_is_no_json_is_named_with_its_line(content, found):
    with pytest.raises(QuestionFileError) as caught:
        rows(content)
    assert found in str(caught.value)


def test_random_cuts_and_flips_are_read_or_named():
    draw = random.Random(15)
    whole = json.dumps(ROWS[:6], ensure_ascii=False).encode()
    for _ in range(300):
        content = bytearray(whole[: draw.randrange(1, len(whole))] if draw.random() < 0.3 else whole)
        content[draw.randrange(len(content))] = draw.choice(b'[]{},:"\\ 0\xff')
        try:
            expected = json.loads(content)
        except ValueError:
            expected = None
        try:
            found = [value for _, value in rows(bytes(content))]
        except QuestionFileError:
            assert expected is None or not content.lstrip().startswith(b"[")
            continue
        assert found == (expected if isinstance(expected, list) else [expected])


@pytest.mark.parametrize("array", [False, True])
def test_a_row_is_no_larger_than_it_may_be(monkeypatch, array):
    monkeypatch.setattr(module, "MAX_ROW_BYTES", 4096)
    monkeypatch.setattr(module, "CHUNK_BYTES", 512)
    good = [{"question": "a" * 900}] * 20
    for row in ({"question": "a" * 5000}, {"question": "a" * 50_000}):
        content = json.dumps([*good, row]) if array else "\n".join(map(json.dumps, [*good, row]))
        with pytest.raises(QuestionFileError, match=r"(row|line) 21: expected at most 4096 bytes, found more"):
            rows(content.encode())
    content = json.dumps(good) if array else "\n".join(map(json.dumps, good))
    assert [value for _, value in rows(content.encode())] == good


def test_a_few_kilobytes_that_unpack_to_megabytes_are_named(tmp_path):
    line = b'{"question": "a", "answers": ["b"]}\n'
    (tmp_path / "q.gz").write_bytes(gzip.compress(line * (MIN_UNPACKED_BYTES // len(line) + 1)))
    with pytest.raises(QuestionFileError, match=f"at most {MIN_UNPACKED_BYTES} bytes, uncompressed"):
        read_questions(tmp_path / "q.gz")


def zstd(content: bytes) -> bytes:
    library = pytest.importorskip("backports.zstd", reason="backports.zstd comes with the extra `zstd`")
    return bytes(library.compress(content))


def test_what_unpacks_to_too_much_is_told_before_the_rest_is_read(tmp_path):
    """What follows a bomb is no reason to unpack it: the limit is of what was read so far."""
    line = b'{"question": "a", "answers": ["b"]}\n'
    tail = b"".join(b'{"question": "%s", "answers": ["b"]}\n' % randbytes(4096).hex().encode() for _ in range(100))
    content = line * ((8 << 20) // len(line)) + tail
    for name, packed in (("q.jsonl.gz", gzip.compress(content)), ("q.jsonl.zst", zstd(content))):
        (tmp_path / name).write_bytes(packed)
        assert len(content) < MAX_UNPACKED_RATIO * len(packed)
        with pytest.raises(QuestionFileError, match=r"at most \d+ bytes, uncompressed"):
            read_questions(tmp_path / name)
