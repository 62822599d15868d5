"""What codecs are tried on of a large corpus: what the questions can find, and some passages that they do not.

A sample has the golds and the best passages of every question, found in the whole corpus, and distractors in even steps
through it. Its questions come with what was found, so that they read what they would read from the whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.spread import spread
from glimmer_export.exporter.files.whole_file import replace_file
from glimmer_export.exporter.memory import CorpusSource
from glimmer_export.exporter.memory.corpus_texts import CorpusTexts, open_corpus
from glimmer_export.runtime.contract import PassageError, QuestionError

__all__ = ["CorpusSample", "sample_corpus"]


@dataclass(frozen=True)
class CorpusSample:
    """Ids of each question's passages, best first, for the search's and the held-out questions.

    `retrieve_ms` is the median time of a search in the whole corpus, which answers that are given passages do not take.
    """

    passages: int
    found: tuple[list[list[int | str]], list[list[int | str]]]
    retrieve_ms: float


def sample_corpus(
    source: CorpusSource, path: Path, parts: tuple[Sequence[Question], Sequence[Question]], top_k: int, least: int,
    advance: Callable[[int], None],
) -> CorpusSample:
    """Write the sample to `path`, of at least `least` passages if the corpus has as many; raises as `open_corpus`."""
    with open_corpus(source) as corpus:
        taken: set[int] = set()
        milliseconds: list[float] = []
        found = []
        for questions in parts:
            numbers = []
            for question in questions:
                started = time.perf_counter()
                numbers.append(_searched(corpus, question.question, top_k))
                milliseconds.append(1e3 * (time.perf_counter() - started))
                taken.update(numbers[-1], _golds(corpus, question.gold_ids))
                advance(1)
            found.append(numbers)
        others = max(0, min(least, corpus.num_passages) - len(taken))
        taken.update(spread(range(corpus.num_passages), others))
        ordered = sorted(taken)
        passages = dict(zip(ordered, corpus.passages(ordered), strict=True))
        rows = [
            {"id": item.id, "title": item.title, "text": item.text, "wikipedia_id": item.wikipedia_id}
            for item in passages.values()
        ]
        replace_file(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        ids = [[[_id(passages[number].id) for number in row] for row in numbers] for numbers in found]
    return CorpusSample(len(ordered), (ids[0], ids[1]), median(milliseconds))


def _searched(corpus: CorpusTexts, question: str, top_k: int) -> list[int]:
    try:
        return [hit.number for hit in corpus.search(question, top_k)]
    except QuestionError:
        return []


def _golds(corpus: CorpusTexts, ids: Sequence[int | str]) -> list[int]:
    found = []
    for identifier in ids:
        try:
            found += corpus.numbers([identifier])
        except PassageError:  # a gold that the corpus has not
            continue
    return found


def _id(identifier: int | str | None) -> int | str:
    assert identifier is not None  # a corpus's passages have ids
    return identifier
