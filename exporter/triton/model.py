"""Answers questions behind the Triton Inference Server: a model of its Python backend, around one session.

`glimmer-export triton` writes this file into a model repository as it stands here. It needs glimmer-export with the
extra that runs the graphs, such as `cpu`, in the Python of the Python backend, and nothing else of the package.

    question       STRING (batch, 1)
    top_k, top_m   INT32 (batch, 1), optional: passages to retrieve and to read
    answer         STRING (batch, 1), empty if nothing was found
    record         STRING (batch, 1): `Answer.to_dict()` in JSON

Triton hands over the requests that its dynamic batcher has put together; questions of equal top_k and top_m are
answered in one batch. A request none of whose questions can be taken fails by itself. In a request of several
questions, one that cannot be taken has an empty answer, and in its record the `error`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from glimmer_export import Answer, GlimmerError, OptionError, PassageError, QuestionError, Session

__all__ = ["TritonPythonModel"]

OF_THE_REQUEST = (QuestionError, PassageError, OptionError)
"""What a client has done wrong. Of anything else it learns the name; the server's log has the rest, paths included."""
REQUIRED: dict[str, bool | Literal["device"]] = {"no": False, "witnessed": True, "device": "device"}


class _Asked(NamedTuple):
    question: str | bytes
    top_k: int | None
    top_m: int | None


class TritonPythonModel:
    """What Triton's Python backend looks for: one instance, whose requests come one batch after the other."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the session and run every graph once; the model is ready after this.

        Its settings are the `parameters` of config.pbtxt; paths are taken from this version's folder. Raises
        TritonModelException, and Triton says that the model is not available.
        """
        import triton_python_backend_utils as pb_utils

        parameters = json.loads(args["model_config"])["parameters"]
        try:
            self._session = _opened({name: each["string_value"] for name, each in parameters.items()}, _home(args))
        except GlimmerError as error:
            raise pb_utils.TritonModelException(f"{type(error).__name__}: {error}") from None

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response for each request, in their order."""
        asked = [_asked(request) for request in requests]
        answers = iter(self._answered([each for questions in asked for each in questions]))
        return [
            _response([next(answers) for _ in questions], request.requested_output_names())
            for request, questions in zip(requests, asked, strict=True)
        ]

    def finalize(self) -> None:
        """Let go of the store's files and the device."""
        self._session.close()

    def _answered(self, asked: list[_Asked]) -> list[Answer]:
        """An answer, or what was wrong, for each question; those of equal top_k and top_m make a batch."""
        batches: dict[tuple[int | None, int | None], list[int]] = {}
        for place, each in enumerate(asked):
            batches.setdefault((each.top_k, each.top_m), []).append(place)
        found: dict[int, Answer] = {}
        for (top_k, top_m), places in batches.items():
            questions: list[Any] = [asked[place].question for place in places]
            try:
                answers = self._session.answer_many(questions, top_k, top_m)
            except GlimmerError as error:  # of their top_k and top_m, or of this machine
                answers = [Answer(str(question), None, error=error) for question in questions]
            found.update(zip(places, answers, strict=True))
        return [found[place] for place in range(len(asked))]


def _home(args: Mapping[str, str]) -> Path:
    return Path(args["model_repository"], args["model_version"])


def _opened(settings: Mapping[str, str], home: Path) -> Session:
    session = Session.open(
        home / settings["bundle"],
        store=home / settings["store"],
        threads=int(settings["threads"]) if "threads" in settings else None,
        verify=settings["verify"] == "yes",
        retrieval=settings["retrieval"],
        backend=settings["backend"],
        require_parity=REQUIRED[settings["require_parity"]],
        compute_precision=settings["compute_precision"],
        draft_tokens=int(settings["draft_tokens"]) if "draft_tokens" in settings else None,
    )
    try:
        session.warm_up()
    except BaseException:
        session.close()
        raise
    return session


def _asked(request: Any) -> list[_Asked]:
    """The questions of a request; one that is no UTF-8 stays bytes, which the session says in its error."""
    import triton_python_backend_utils as pb_utils

    def numbers(name: str) -> list[int | None]:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        return [None] * len(questions) if tensor is None else [int(number) for number in tensor.as_numpy().flat]

    questions = [bytes(each) for each in pb_utils.get_input_tensor_by_name(request, "question").as_numpy().flat]
    return [_Asked(*each) for each in zip(map(_text, questions), numbers("top_k"), numbers("top_m"), strict=True)]


def _text(question: bytes) -> str | bytes:
    try:
        return question.decode("utf-8")
    except UnicodeDecodeError:
        return question


def _response(answers: list[Answer], wanted: Iterable[str]) -> Any:
    """Triton's response to the request that asked for these answers, with the outputs that it wants."""
    import triton_python_backend_utils as pb_utils

    errors = [answer.error for answer in answers if answer.error is not None]
    ours = [error for error in errors if not isinstance(error, OF_THE_REQUEST)]
    if ours:
        pb_utils.Logger.log_error(f"{type(ours[0]).__name__}: {ours[0]}")
        return _failed(f"{type(ours[0]).__name__}: see the server's log", pb_utils.TritonError.INTERNAL)
    if errors and len(errors) == len(answers):
        return _failed(f"{type(errors[0]).__name__}: {errors[0]}", pb_utils.TritonError.INVALID_ARG)
    texts = {
        "answer": [answer.answer or "" for answer in answers],
        "record": [json.dumps(answer.to_dict(), ensure_ascii=False, allow_nan=False) for answer in answers],
    }
    return pb_utils.InferenceResponse(
        output_tensors=[
            pb_utils.Tensor(name, np.array([[text.encode()] for text in column], dtype=np.object_))
            for name, column in texts.items() if name in wanted
        ]
    )


def _failed(message: str, code: Any) -> Any:
    import triton_python_backend_utils as pb_utils

    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code))
