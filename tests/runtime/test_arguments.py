"""What a caller passes by mistake is named by what was expected and what came, at every door of the runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glimmer_export.runtime import (
    Bundle,
    ClosedError,
    GlimmerError,
    MemoryStore,
    OptionError,
    Passage,
    PassageError,
    PassageId,
    PassageNumberError,
    QuestionError,
    Session,
    StoreError,
)
from glimmer_export.runtime.arguments import described
from tests.exported import CORPUS, QUESTIONS

IDS = [row["id"] for row in CORPUS]


class Odd:
    """An object that does not even describe itself."""

    def __repr__(self) -> str:
        raise RuntimeError


NO_WHOLE_NUMBERS = [
    1.5, 1.0, "1", b"1", True, np.True_, float("nan"), [1], np.array([1, 2]), Odd(), 10**5000, 0, -1,
]  # fmt: skip
NO_TEXTS = [None, 3, 1.5, b"w1", ["w1"], Passage(None, "", "w1"), Odd()]
NO_LISTS = [
    "w1 w2", b"w1", 3, 1.5, True, {"w1": 1}, {"w1", "w2"}, frozenset({"w1"}), np.array("w1"), np.array(1), Odd(),
]  # fmt: skip
NO_PATHS = [3, 1.5, b"bundle", True, ["bundle"], "", "a\0b", Odd()]
NO_FLAGS = ["yes", 1, 0, None, 1.0, [], Odd()]


def name_of(value: object) -> str:
    """A case's name, the same in every process: without the address that an object of no description shows."""
    return described(value).partition(" at 0x")[0]


@pytest.mark.parametrize("value", [*NO_WHOLE_NUMBERS, 3841], ids=name_of)
def test_what_is_no_number_of_passages(glimmer, value):
    for option in ("top_k", "top_m"):
        with pytest.raises(OptionError, match=f"{option}: expected a whole number from 1 to 3840, found"):
            glimmer.session.answer("w1", **{option: value})
        with pytest.raises(OptionError, match=option):
            glimmer.session.answer_many([], **{option: value})


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16, np.array])
def test_numpys_whole_numbers_are_taken(glimmer, kind):
    answer = glimmer.session.answer("w3 w14 w15", kind(4), kind(2))
    assert (len(answer.passages), len(answer.read_passages)) == (4, 2)


@pytest.mark.parametrize("value", [*NO_LISTS, None], ids=name_of)
def test_what_is_no_list_of_questions(glimmer, value):
    with pytest.raises(OptionError, match="questions: expected a list of questions, found"):
        glimmer.session.answer_many(value)


@pytest.mark.parametrize("value", NO_TEXTS, ids=name_of)
def test_what_is_no_question(glimmer, value):
    with pytest.raises(QuestionError, match="expected text, as a str, found"):
        glimmer.session.answer(value)
    answers = glimmer.session.answer_many(["w0 w7", value])
    assert isinstance(answers[1].error, QuestionError)
    assert isinstance(answers[1].question, str)
    assert answers[0].token_ids == glimmer.session.answer("w0 w7").token_ids


@pytest.mark.parametrize("value", NO_LISTS, ids=name_of)
def test_what_is_no_list_of_passages(glimmer, value):
    with pytest.raises(PassageError, match="passages: expected a list of ids, texts or Passages, found"):
        glimmer.session.answer("w1", passages=value)
    with pytest.raises(OptionError, match="passages: expected a list of lists, one a question, found"):
        glimmer.session.answer_many(["w1"], passages=value)
    answers = glimmer.session.answer_many(["w0 w7", "w1"], passages=[None, value])
    assert isinstance(answers[1].error, PassageError)
    assert answers[0].token_ids == glimmer.session.answer("w0 w7").token_ids


@pytest.mark.parametrize(
    "passage",
    [b"w1 w2", {"text": "w1 w2"}, ["w1"], Odd(), PassageId(None), PassageId(1.5), PassageId("a \udcff"),
     Passage(None, None, "w1"), Passage(None, "", 3), Passage(None, "", b"w1"), Passage(1.5, "", "w1"),
     Passage(None, "", "w1", wikipedia_id=7), Passage(float("nan"), "", "w1")],
    ids=name_of,
)  # fmt: skip
def test_what_is_no_passage(glimmer, passage):
    with pytest.raises(PassageError):
        glimmer.session.answer("w1", passages=[passage])


def test_generators_and_arrays_are_lists(glimmer):
    session = glimmer.session
    expected = session.answer_many(QUESTIONS[:2], passages=[[1, 3, 5], [7, 9]])
    generated = session.answer_many(
        (question for question in QUESTIONS[:2]), passages=(iter(ids) for ids in ([1, 3, 5], [7, 9]))
    )
    arrays = session.answer_many(np.array(QUESTIONS[:2]), passages=(np.array([1, 3, 5]), np.array([7, 9])))
    for answers in (generated, arrays):
        assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
        assert [answer.question for answer in answers] == QUESTIONS[:2]
        assert all(type(answer.question) is str for answer in answers)


@pytest.mark.parametrize("value", [*NO_WHOLE_NUMBERS, 513, 2**31, 2**70], ids=name_of)
def test_threads_are_a_number_of_threads(glimmer, value):
    with pytest.raises(OptionError, match="threads: expected a whole number from 1 to 512, found"):
        Session.open(glimmer.bundle, threads=value)
    with pytest.raises(OptionError, match="threads"):
        MemoryStore.open(glimmer.store, glimmer.session.bundle, threads=value)


@pytest.mark.parametrize("value", NO_PATHS, ids=name_of)
def test_what_is_no_path(glimmer, value):
    with pytest.raises(OptionError, match="bundle: expected a path"):
        Session.open(value)
    with pytest.raises(OptionError, match="bundle: expected a path"):
        Bundle.open(value)
    with pytest.raises(OptionError, match="store: expected a path"):
        Session.open(glimmer.bundle, value)
    with pytest.raises(OptionError, match="store: expected a path"):
        MemoryStore.open(value, glimmer.session.bundle)


class Located:
    """An os.PathLike that is no Path."""

    def __init__(self, path: object) -> None:
        self._path = path

    def __fspath__(self) -> object:
        return self._path


def test_paths_of_every_kind_are_taken(glimmer):
    for kind in (str, Path, Located):
        with Session.open(kind(str(glimmer.bundle)), kind(str(glimmer.store)), threads=1) as session:
            assert session.store.num_passages == len(CORPUS)
    for odd in (b"bundle", 3):
        with pytest.raises(OptionError, match="expected a path"):
            Session.open(Located(odd))


@pytest.mark.parametrize("value", NO_FLAGS, ids=name_of)
def test_flags_are_flags(glimmer, value):
    with pytest.raises(OptionError, match="verify: expected True or False"):
        Session.open(glimmer.bundle, verify=value)
    with pytest.raises(OptionError, match='require_parity: expected False, True or "device"'):
        Session.open(glimmer.bundle, require_parity=value)


@pytest.mark.parametrize(
    ("option", "value"),
    [("retrieval", "bm26"), ("retrieval", None), ("retrieval", ["bm25"]), ("retrieval", b"bm25"), ("backend", "cuda"),
     ("backend", None), ("backend", 3), ("backend", b"auto"), ("backend", int), ("require_parity", "devices"),
     ("require_parity", np.array([True, False])), ("passage_cache_bytes", -1), ("passage_cache_bytes", 1.5),
     ("passage_cache_bytes", None), ("passage_cache_bytes", 2**70), ("backend", Odd())],
)  # fmt: skip
def test_options_that_there_are_not(glimmer, option, value):
    with pytest.raises(OptionError, match=f"^{option}: expected"):
        Session.open(glimmer.bundle, glimmer.store, **{option: value})


def test_a_store_is_opened_for_a_bundle(glimmer):
    with pytest.raises(OptionError, match=r"bundle: expected a Bundle.*Bundle.open"):
        MemoryStore.open(glimmer.store, glimmer.bundle)


@pytest.mark.parametrize("value", NO_WHOLE_NUMBERS, ids=name_of)
def test_passage_numbers_are_whole_numbers_that_there_are(glimmer, value):
    with MemoryStore.open(glimmer.store, glimmer.session.bundle) as store:
        reads = (store.passage, store.memory, store.input_ids, lambda number: store.passages([number]),
                 lambda number: store.prefetch([number]))  # fmt: skip
        if isinstance(value, int) and not isinstance(value, bool) and value == 0:
            assert store.passage(value).id == IDS[0]
            assert store.search("w1", value) == []
            return
        for read in reads:
            with pytest.raises((OptionError, PassageNumberError)):
                read(value)
        with pytest.raises(OptionError, match="top_k"):
            store.search("w1", value)


def test_a_number_that_there_is_not_is_an_index_error_too(glimmer):
    with MemoryStore.open(glimmer.store, glimmer.session.bundle) as store:
        for number in (len(CORPUS), -1, 2**63, 2**70):
            for read in (store.passage, store.memory, store.input_ids):
                with pytest.raises(PassageNumberError) as caught:
                    read(number)
                assert isinstance(caught.value, IndexError)
        assert store.passage(np.int64(3)).id == IDS[3]


@pytest.mark.parametrize("value", [*NO_LISTS, None], ids=name_of)
def test_what_is_no_list_of_ids_or_numbers(glimmer, value):
    with MemoryStore.open(glimmer.store, glimmer.session.bundle) as store:
        with pytest.raises(PassageError, match="ids: expected a list"):
            store.numbers(value)
        for read in (store.passages, store.prefetch):
            with pytest.raises(OptionError, match="numbers: expected a list"):
                read(value)


@pytest.mark.parametrize("value", ["1", 1.5, None, True, -1, 2**70, Odd()], ids=name_of)
def test_what_is_no_number_of_first_passages(glimmer, value):
    with MemoryStore.open(glimmer.store, glimmer.session.bundle) as store:
        with pytest.raises(OptionError, match="count: expected a whole number from 0"):
            store.first_numbers(value)
        assert store.first_numbers(np.int64(2)) == [0, 1]


@pytest.mark.parametrize("value", NO_TEXTS, ids=name_of)
def test_a_search_is_for_text(glimmer, value):
    with MemoryStore.open(glimmer.store, glimmer.session.bundle) as store:
        with pytest.raises(QuestionError):
            store.search(value, 3)
        assert store.search("\udcff", 3) == []


def test_what_is_closed_says_so(glimmer):
    for opened in (Session.open(glimmer.bundle, glimmer.store, threads=1), Session.open(glimmer.bundle, threads=1)):
        opened.close()
        opened.close()
        for use in (
            lambda s: s.answer("w1"), lambda s: s.answer_many(["w1"]), lambda s: s.answer_many([]),
            lambda s: s.answer("w1", passages=["w1 w2"]), lambda s: s.refresh(), lambda s: s.warm_up(),
        ):  # fmt: skip
            with pytest.raises(ClosedError, match="session: expected an open one"):
                use(opened)
    store = MemoryStore.open(glimmer.store, glimmer.session.bundle)
    store.close()
    store.close()
    for use in (
        lambda: store.search("w1", 3), lambda: store.numbers([1]), lambda: store.passage(0), lambda: store.passages([]),
        lambda: store.memory(0), lambda: store.prefetch([]), lambda: store.input_ids(0), store.newer,
        lambda: store.first_numbers(1), lambda: store.search_dense(np.zeros(2), 1),
    ):  # fmt: skip
        with pytest.raises(ClosedError, match="expected an open one"):
            use()


def test_a_store_without_vectors_has_no_dense_search(glimmer):
    with MemoryStore.open(glimmer.store, glimmer.session.bundle) as store, pytest.raises(StoreError, match="vectors"):
        store.search_dense(np.zeros(2), 3)


def test_an_error_keeps_its_parts(glimmer):
    with pytest.raises(GlimmerError) as caught:
        glimmer.session.answer("w1", top_k=1.5)
    error = caught.value
    assert (error.subject, error.expected, error.found) == ("top_k", "a whole number from 1 to 3840", "1.5 (float)")
