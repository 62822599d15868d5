"""Sessions with drafts answer as without, whatever the drafts are: in either form of cross-attention, and in INT8."""

from __future__ import annotations

import pytest

from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.runtime import Answer, Passage, Session
from glimmer_export.runtime.drafts import Drafts, DraftSource
from glimmer_export.runtime.reader import Reader
from tests.calibrated import calibrated
from tests.exported import CORPUS, QUESTIONS

IDS = [row["id"] for row in CORPUS]
GIVEN = [IDS[4 * number : 4 * number + 1 + number] for number in range(len(QUESTIONS))]
VARIANTS = [
    "glimmer", "glimmer, exact algebra", "memory_fid", "fid", pytest.param("fid, its own code", marks=pytest.mark.slow),
]


def answers(bundle, store, *, draft_tokens: int | None, backend: str = "onnxruntime-cpu") -> list[Answer]:
    with Session.open(bundle, store, threads=1, backend=backend, draft_tokens=draft_tokens) as session:
        return session.answer_many(QUESTIONS, passages=GIVEN)


def draft_from(monkeypatch: pytest.MonkeyPatch, rows: list[list[int]]) -> None:
    """Have every row draft from tokens of the test's."""
    made = [DraftSource([row], {}) for row in rows]
    monkeypatch.setattr(Reader, "_drafts", lambda self, rows, *_: Drafts(made[: len(rows)], self._draft_tokens))


def assert_same(found: list[Answer], plain: list[Answer]) -> None:
    assert [answer.token_ids for answer in found] == [answer.token_ids for answer in plain]
    for one, other in zip(found, plain, strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)


def drafted(bundle, store, monkeypatch, tokens: int, backend: str = "onnxruntime-cpu") -> None:
    """Right drafts, drafts of which some tokens are wrong, and those of the passages."""
    plain = answers(bundle, store, draft_tokens=0, backend=backend)
    assert all(len(answer.token_ids) <= answer.decoder_runs <= len(answer.token_ids) + 1 for answer in plain)
    assert_same(answers(bundle, store, draft_tokens=tokens, backend=backend), plain)
    rows = [[*answer.token_ids] for answer in plain]
    draft_from(monkeypatch, rows)
    found = answers(bundle, store, draft_tokens=tokens, backend=backend)
    assert_same(found, plain)
    assert sum(answer.decoder_runs for answer in found) < 0.8 * sum(answer.decoder_runs for answer in plain)
    wrong = [[token if place % 3 else 5 for place, token in enumerate(row)] for row in rows]
    draft_from(monkeypatch, [[*row, *other] for row, other in zip(wrong, rows, strict=True)])
    assert_same(answers(bundle, store, draft_tokens=tokens, backend=backend), plain)


@pytest.mark.parametrize("tokens", [2, 7])
@pytest.mark.parametrize("variant", VARIANTS)
def test_drafts(exported, monkeypatch, variant, tokens):
    """Seven reach beyond the cache, as at most six tokens are answered."""
    source = exported(variant)
    drafted(source.bundle, source.store, monkeypatch, tokens)


@pytest.mark.parametrize("variant", ["glimmer", "glimmer, exact algebra"])
def test_drafts_in_openvino(exported, monkeypatch, variant):
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'glimmer-export[openvino]'")
    source = exported(variant)
    drafted(source.bundle, source.store, monkeypatch, 4, "openvino")


@pytest.mark.parametrize("variant", ["glimmer", "glimmer, exact algebra"])
def test_drafts_in_int8(exported, monkeypatch, tmp_path, variant):
    source = exported(variant)
    quantize_bundle(calibrated(source), tmp_path / "bundle", QuantizeOptions("int8", "cpu", cpu="x86-vnni"))
    drafted(tmp_path / "bundle", source.store, monkeypatch, 4)


def test_drafts_come_of_the_passages_that_are_read_the_best_first(exported, monkeypatch):
    source = exported("glimmer")
    seen = []

    def noted(passages, stops):
        seen.append([list(map(int, passage)) for passage in passages])
        return DraftSource(seen[-1], stops)

    monkeypatch.setattr("glimmer_export.runtime.reader.DraftSource", noted)
    with Session.open(source.bundle, source.store, threads=1, draft_tokens=3) as session:
        stored = session.answer(QUESTIONS[0], passages=IDS[:5])
        given = session.answer(QUESTIONS[0], passages=[Passage(None, row["title"], row["text"]) for row in CORPUS[:5]])
        assert session.store is not None
        ids = [session.store.input_ids(number).tolist() for number in session.store.numbers(IDS[:5])]
    for answer, passages in zip((stored, given), seen, strict=True):
        best = sorted(answer.selected, key=lambda place: -answer.scores[place])
        assert passages == [ids[place] for place in best]
        assert len(best) == source.shape.num_selected
