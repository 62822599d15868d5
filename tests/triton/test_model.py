"""model.py as it stands in a repository, with a stand-in for what Triton puts beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from glimmer_export.exporter.triton import TritonOptions, write_repository
from glimmer_export.runtime import Session, StoreError
from glimmer_export.runtime.session import Session as SessionClass
from tests.packaging.test_imports import BUILD_SIDE, packages_imported_by
from tests.triton.test_repository import BUNDLE, STORE, settings

QUESTIONS = ["w1", "w0 w7", "w20 w31 w42 w53", "w33"]
NOTHING_FOUND = "nothing"


@dataclass(frozen=True)
class Tensor:
    name: str
    array: np.ndarray

    def as_numpy(self) -> np.ndarray:
        return self.array


@dataclass(frozen=True)
class TritonError:
    INTERNAL, INVALID_ARG = "internal", "invalid argument"
    message: str
    code: str


@dataclass(frozen=True)
class Response:
    output_tensors: list[Tensor]
    error: TritonError | None = None

    def __getitem__(self, name: str) -> list[str]:
        (tensor,) = (each for each in self.output_tensors if each.name == name)
        assert tensor.array.shape == (len(tensor.array), 1)
        return [each.decode() for each in tensor.array[:, 0]]


@dataclass(frozen=True)
class Request:
    inputs: dict[str, list[Any]]
    wanted: tuple[str, ...] = ("answer", "record")

    @classmethod
    def of(
        cls, *questions: str | bytes, wanted: tuple[str, ...] = ("answer", "record"), **numbers: list[int]
    ) -> Request:
        asked = [each if isinstance(each, bytes) else each.encode() for each in questions]
        return cls({"question": asked, **numbers}, wanted)

    def requested_output_names(self) -> list[str]:
        return [*self.wanted]


def tensor_of(request: Request, name: str) -> Tensor | None:
    """As Triton does: None for an optional input that the client left out."""
    if name not in request.inputs:
        return None
    dtype = np.object_ if name == "question" else np.int32
    return Tensor(name, np.array([[each] for each in request.inputs[name]], dtype=dtype))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the model says in the server's log; `triton_python_backend_utils` is there as long as this is."""
    said: list[str] = []
    utils: Any = ModuleType("triton_python_backend_utils")
    utils.Tensor, utils.InferenceResponse, utils.TritonError = Tensor, Response, TritonError
    utils.TritonModelException = type("TritonModelException", (Exception,), {})
    utils.get_input_tensor_by_name = tensor_of
    utils.Logger = type("Logger", (), {"log_error": staticmethod(said.append)})
    monkeypatch.setitem(sys.modules, utils.__name__, utils)
    return said


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("triton") / "repo"
    write_repository(BUNDLE, STORE, place, TritonOptions(threads=1, require_parity="witnessed"))
    return place


def started(repository: Path) -> Any:
    """What Triton does with a model of the Python backend."""
    home = repository / "glimmer"
    spec = spec_from_file_location("model", home / "1" / "model.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    parameters = {name: {"string_value": value} for name, value in settings(repository).items()}
    config = json.dumps({"parameters": parameters})
    model.initialize({"model_config": config, "model_repository": str(home), "model_version": "1"})
    return model


@pytest.fixture
def model(repository, logged) -> Iterator[Any]:
    running = started(repository)
    yield running
    running.finalize()


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session.open(BUNDLE, STORE, threads=1) as opened:
        yield opened


def same_but_for_time(record: str, expected: dict[str, Any]) -> bool:
    found = json.loads(record)
    assert found["milliseconds"]
    return {**found, "milliseconds": None} == {**expected, "milliseconds": None}


def test_answers_are_the_sessions(model, session):
    responses = model.execute([Request.of(question) for question in QUESTIONS])
    expected = session.answer_many(QUESTIONS)
    assert [response["answer"] for response in responses] == [[each.answer] for each in expected]
    assert any(each.answer for each in expected)
    assert all(
        same_but_for_time(response["record"][0], each.to_dict())
        for response, each in zip(responses, expected, strict=True)
    )


def test_drafts_and_compute_precision_are_the_sessions(repository, monkeypatch, logged, tmp_path):
    write_repository(
        BUNDLE, STORE, tmp_path / "repo", TritonOptions(threads=1, compute_precision="fp32", draft_tokens=0)
    )
    opened, open_session = [], SessionClass.open

    def noted(*arguments, **options):
        opened.append((options["compute_precision"], options["draft_tokens"]))
        return open_session(*arguments, **options)

    monkeypatch.setattr(SessionClass, "open", noted)
    for written in (tmp_path / "repo", repository):
        started(written).finalize()
    assert opened == [("fp32", 0), ("auto", None)]


def test_questions_with_their_own_k_and_m_in_one_batch(model, session):
    requests = [
        Request.of(QUESTIONS[0], QUESTIONS[1], top_k=[3, 2], top_m=[1, 2]), Request.of(QUESTIONS[2]),
        Request.of(QUESTIONS[3], top_k=[1]), Request.of(QUESTIONS[0], top_m=[1]),
    ]  # fmt: skip
    expected = [
        [session.answer(QUESTIONS[0], 3, 1), session.answer(QUESTIONS[1], 2, 2)], [session.answer(QUESTIONS[2])],
        [session.answer(QUESTIONS[3], 1)], [session.answer(QUESTIONS[0], None, 1)],
    ]  # fmt: skip
    for response, answers in zip(model.execute(requests), expected, strict=True):
        records = [json.loads(record) for record in response["record"]]
        assert [len(record["passages"]) for record in records] == [len(answer.passages) for answer in answers]
        assert response["answer"] == [answer.answer for answer in answers]
        assert [record["token_ids"] for record in records] == [[*answer.token_ids] for answer in answers]


def test_what_is_asked_alike_is_answered_in_one_batch(model, monkeypatch):
    batches, answer_many = [], SessionClass.answer_many

    def counted(self, questions, *arguments, **options):
        batches.append(len(questions))
        return answer_many(self, questions, *arguments, **options)

    monkeypatch.setattr(SessionClass, "answer_many", counted)
    model.execute([Request.of(*QUESTIONS), Request.of("w1", top_k=[2]), Request.of("w2")])
    assert sorted(batches) == [1, len(QUESTIONS) + 1]


BAD = {
    "nothing asked": Request.of(""), "blanks": Request.of("   "), "no UTF-8": Request.of(b"w1 \xff"),
    "too long": Request.of(" ".join(["w1"] * 100_000)), "no passage": Request.of("w1", top_k=[0]),
    "a negative number": Request.of("w1", top_m=[-1]), "too many passages": Request.of("w1", top_k=[2**31 - 1]),
    "more read than found": Request.of("w1", top_k=[1], top_m=[2**31 - 1]),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_question_fails_alone(model, session, bad):
    before, response, after = model.execute([Request.of(QUESTIONS[0]), bad, Request.of(QUESTIONS[1])])
    assert response.error is not None
    assert response.error.code == TritonError.INVALID_ARG
    assert "expected" in response.error.message
    assert response.output_tensors == []
    assert [*before["answer"], *after["answer"]] == [each.answer for each in session.answer_many(QUESTIONS[:2])]


def test_a_bad_question_among_several_of_a_request_has_its_error_in_its_record(model, session):
    (response,) = model.execute([Request.of(QUESTIONS[0], "", QUESTIONS[1])])
    expected = session.answer_many(QUESTIONS[:2])
    assert response["answer"] == [expected[0].answer, "", expected[1].answer]
    assert [(json.loads(record)["error"] or {}).get("type") for record in response["record"]] == [
        None, "QuestionError", None,
    ]  # fmt: skip
    (all_bad,) = model.execute([Request.of("", " ")])
    assert all_bad.error.code == TritonError.INVALID_ARG


def test_a_question_that_finds_nothing_has_an_empty_answer(model):
    (response,) = model.execute([Request.of(NOTHING_FOUND)])
    assert response["answer"] == [""]
    record = json.loads(response["record"][0])
    assert (record["answer"], record["error"], record["passages"]) == (None, None, [])


@pytest.mark.parametrize("wanted", [("answer",), ("record",)])
def test_only_the_outputs_that_a_client_wants_are_sent(model, wanted):
    (response,) = model.execute([Request.of(QUESTIONS[0], wanted=wanted)])
    assert [tensor.name for tensor in response.output_tensors] == [*wanted]


def test_text_of_any_language_is_utf8(model):
    question = "w1 Ä 東京 \N{GRINNING FACE} \x00"
    (response,) = model.execute([Request.of(question)])
    assert json.loads(response["record"][0])["question"] == question


def test_what_is_wrong_with_the_machine_stays_in_its_log(model, logged, monkeypatch):
    def lost(*arguments, **options):
        raise StoreError("store /srv/store", expected="a", found="b", fix="c")

    monkeypatch.setattr(SessionClass, "answer_many", lost)
    (response,) = model.execute([Request.of("w1")])
    assert (response.error.code, response.error.message) == (TritonError.INTERNAL, "StoreError: see the server's log")
    assert "/srv/store" in logged[0]


def test_every_graph_runs_before_the_model_is_ready(repository, logged, monkeypatch):
    calls = []
    monkeypatch.setattr(SessionClass, "warm_up", lambda session: calls.append("warm"))
    started(repository).finalize()
    assert len(calls) == 1


def test_a_model_whose_store_is_gone_is_not_ready(tmp_path, logged):
    write_repository(BUNDLE, STORE, tmp_path / "repo")
    (tmp_path / "repo" / "glimmer" / "1" / "store" / "manifest.json").unlink()
    with pytest.raises(sys.modules["triton_python_backend_utils"].TritonModelException, match="StoreError"):
        started(tmp_path / "repo")


def test_a_model_that_does_not_warm_up_closes_its_session(repository, logged, monkeypatch):
    closed, close = [], SessionClass.close

    def fails(self):
        raise StoreError("store", expected="a", found="b", fix="c")

    monkeypatch.setattr(SessionClass, "warm_up", fails)
    monkeypatch.setattr(SessionClass, "close", lambda self: (closed.append(self), close(self)))
    with pytest.raises(Exception, match="expected a"):
        started(repository)
    assert len(closed) == 1


def test_it_brings_in_the_runtime_alone(repository):
    script = f"import runpy; runpy.run_path({str(repository / 'glimmer' / '1' / 'model.py')!r})"
    imported = packages_imported_by(script)
    assert "glimmer_export.runtime" in imported
    assert not imported & (BUILD_SIDE | {"glimmer_export.exporter", "glimmer_export.calibration"})
