"""What batches bring, and what of it a server loses: the same questions one by one, by eight, and by many clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from statistics import median
from typing import Any

from glimmer_export.runtime import Session
from tests.serving.load.asking import Stream, Tally, Truth, ask_all, expected_of, seen
from tests.serving.load.scenarios import Subject, ended

__all__ = ["throughput"]

BATCH = 8
PASSES = 2
"""How often the clients ask all questions in one turn: only at its end are there too few for a batch."""


def throughput(subject: Subject) -> dict[str, Any]:
    """So many rounds as `subject.requests`, and one before them: each has every question in each of the three ways."""
    rates: dict[str, list[float]] = {"one_by_one": [], "by_eight": [], "served": []}
    tally, drawn, end = Tally(), Random(0), time.monotonic() + subject.seconds
    with Session.open(subject.bundle, subject.store, threads=subject.threads) as session, subject.served() as served:
        session.warm_up()
        # Another batch is padded to another length, and a model of random weights may then say another word.
        truth = Truth([expected_of(session, subject.questions), _by_eight(session, subject.questions)], exact=False)

        def ask() -> None:
            found = asyncio.run(
                ask_all(
                    partial(Stream, served.host, served.port), subject.questions, truth, clients=subject.clients,
                    requests=PASSES * len(subject.questions),
                )
            )
            tally.statuses += found.statuses
            tally.faults += found.faults
            tally.other_words += found.other_words

        ways: dict[str, tuple[Callable[[], object], int]] = {
            "one_by_one": (lambda: [session.answer(question) for question in subject.questions], 1),
            "by_eight": (lambda: _by_eight(session, subject.questions), 1),
            "served": (ask, PASSES),
        }
        for number in range(1 + subject.requests):
            if time.monotonic() > end:
                break
            for name in drawn.sample(sorted(ways), len(ways)):
                way, passes = ways[name]
                began = time.perf_counter()
                way()
                if number:
                    rates[name].append(passes * len(subject.questions) / (time.perf_counter() - began))
        batches = {
            "questions_per_batch": round(
                served.metric("glimmer_batch_questions_sum") / served.metric("glimmer_batch_questions_count"), 2
            )
        }
        figures = ended(served, tally) | {"answers_in_other_words": tally.other_words}
    return figures | batches | {
        "rounds": len(rates["served"]), "questions": len(subject.questions), "threads": subject.threads,
        "questions_per_second": {name: round(median(values), 3) for name, values in rates.items()},
        "by_eight_beside_one_by_one": _beside(rates["by_eight"], rates["one_by_one"]),
        "served_beside_by_eight": _beside(rates["served"], rates["by_eight"]),
    }


def _by_eight(session: Session, questions: Sequence[str]) -> dict[str, dict[str, Any]]:
    parts = [questions[start : start + BATCH] for start in range(0, len(questions), BATCH)]
    answers = [answer for part in parts for answer in session.answer_many(part)]
    return {question: seen(answer.to_dict()) for question, answer in zip(questions, answers, strict=True)}


def _beside(ours: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    ratios = [our / other for our, other in zip(ours, others, strict=True)]
    return {"median": round(median(ratios), 3), "least": round(min(ratios), 3), "most": round(max(ratios), 3)}
