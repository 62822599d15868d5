"""Measures what a store's codec costs: `python -m tests.memory.measure_codecs --help`.

The demo's corpus lies sorted, kind by kind. For each size a world is cut to so many passages in their order, and each
codec is had in two ways, by `memory build` and by `memory convert` of the fp16 store. All stores answer the same
questions from the same candidates. `--table` builds the whole world of `demo-data --questions 10000`, its candidates
retrieved, and converts nothing. `--world` takes what `demo-data` wrote, its checkpoint too, and the candidates that its
questions give; its stores are converted. Whatever is in the work folder already is not made again.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from glimmer_export.calibration.spread import spread
from glimmer_export.exporter.answering.metrics import exact_match
from glimmer_export.exporter.bundle import FormOptions, export_bundle
from glimmer_export.exporter.demo.world import CHECKPOINT, Question, World, generate_split, write_world
from glimmer_export.exporter.memory import build_store, convert_store
from glimmer_export.exporter.parity.figures import paired_interval
from glimmer_export.runtime import Session
from glimmer_export.runtime.candidates import PassageId
from glimmer_export.runtime.contract import CODECS, read_store_manifest

EXACT = "fp16-build"
SIZES = (1500, 2047, 10_240)
TABLE_QUESTIONS = 10_000
MORE = 1.03
"""Questions asked for of a world, for each passage it is to have: it has about one a question."""
BATCH = 64
WAYS = ("build", "convert")


@dataclass(frozen=True)
class Replies:
    """By question: the answer, ids of the k candidates, the places of those that were read; and the store's SNR."""

    answers: list[str | None]
    candidates: list[list[int]]
    read: list[list[int]]
    snr_db: tuple[float | None, float | None] | None


def sorted_world(num_passages: int, num_questions: int, seed: int) -> World:
    """A world of exactly so many passages, kind by kind, and at most so many questions whose gold passage is there."""
    world = generate_split("test", int(num_passages * MORE), seed)
    kept = sorted(random.Random(seed).sample(range(len(world.corpus)), num_passages))
    there = set(kept)
    questions = [
        Question({**row, "ctx_ids": [number for number in row["ctx_ids"] if number in there]})
        for row in world.questions if set(row["gold_ids"]) <= there
    ]
    return World([world.corpus[number] for number in kept], spread(questions, num_questions))


def ask(bundle: Path, store: Path, questions: list[Question], given: list[list[int]] | None, threads: int) -> Replies:
    """Ask a store, of `given` candidates; None: of those that it retrieves."""
    snr = getattr(read_store_manifest(store), "codec_snr", None)
    replies = Replies([], [], [], None if snr is None else (snr.fitted_db, snr.outside_db))
    with Session.open(bundle, store, threads=threads, verify=False) as session:
        for start in range(0, len(questions), BATCH):
            texts = [row["question"] for row in questions[start : start + BATCH]]
            passages = None
            if given is not None:
                passages = [[PassageId(number) for number in ids] for ids in given[start : start + BATCH]]
            for answer in session.answer_many(texts, passages=passages):
                replies.answers.append(answer.answer)
                replies.candidates.append([int(item.passage.id or 0) for item in answer.passages])
                replies.read.append(list(answer.selected))
    return replies


def measure(
    folder: Path, bundle: Path, world: World, *, retrieve: bool, threads: int, ways: tuple[str, ...] = WAYS
) -> None:
    """Fill the folder of one world: its stores, and beside each a file of its replies."""
    write_world(folder, world)
    given = None if retrieve else [row["ctx_ids"] for row in world.questions]
    for name in (EXACT, *(f"{codec}-{way}" for codec in tuple(CODECS)[1:] for way in ways)):
        codec, way = name.split("-")
        store, found = folder / name, folder / f"{name}.json"
        if not store.exists():
            if way == "build":
                build_store(bundle, folder / "corpus.jsonl", store, codec=codec, threads=threads)
            else:
                convert_store(folder / EXACT, store, codec)
        if not found.exists():
            found.write_text(json.dumps(vars(ask(bundle, store, world.questions, given, threads))), encoding="utf-8")
        if retrieve:
            given = _replies(folder, EXACT).candidates


def read_world(folder: Path, num_questions: int) -> World:
    """A world that `demo-data` wrote, with at most so many of its questions, in even steps."""
    corpus, questions = (
        [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        for name in ("corpus.jsonl", "questions.jsonl")
    )
    return World(corpus, spread([Question(row) for row in questions], num_questions))


def figures(folder: Path, name: str) -> dict[str, Any]:
    """A store's replies beside those of the fp16 store: exact match from 0 to 1, paired, and what stayed as it was."""
    questions = [json.loads(line) for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    exact, found = _replies(folder, EXACT), _replies(folder, name)
    before, after = _right(exact, questions), _right(found, questions)
    same = [one == two for one, two in zip(exact.answers, found.answers, strict=True)]
    shares = [len({*one} & {*two}) / len(one) for one, two in zip(exact.read, found.read, strict=True) if one]
    return {
        "questions": len(questions), "em_reference": fmean(before), "em_candidate": fmean(after),
        "em_delta": fmean(after) - fmean(before), "em_delta_interval": paired_interval(before, after),
        "answers_equal": fmean(same),
        "equal_of_correct": fmean(kept for kept, was_right in zip(same, before, strict=True) if was_right),
        "top_m_overlap": fmean(shares), "snr_db": found.snr_db,
    }


def report(folder: Path) -> dict[str, dict[str, Any]]:
    """Figures of each store that was asked, by its name, such as int8-build."""
    names = (f"{codec}-{way}" for codec in tuple(CODECS)[1:] for way in WAYS)
    return {name: figures(folder, name) for name in names if (folder / f"{name}.json").exists()}


def _replies(folder: Path, name: str) -> Replies:
    return Replies(**json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))


def _right(replies: Replies, questions: list[Question]) -> list[float]:
    return [exact_match(answer or "", row["answers"]) for answer, row in zip(replies.answers, questions, strict=True)]


def main() -> None:
    """Measure, printing what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of stores and replies, kept")
    parser.add_argument("--passages", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--questions", type=int, default=4000, help="at most, of each size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="the whole world, its candidates retrieved")
    parser.add_argument("--world", type=Path, help="what `demo-data` wrote, instead of sizes")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    bundle = options.work / "bundle"
    if not bundle.exists():
        options.work.mkdir(parents=True, exist_ok=True)
        checkpoint = options.world / "checkpoint" if options.world else CHECKPOINT
        export_bundle(checkpoint, bundle, FormOptions(codecs=tuple(CODECS)))
    for size in options.passages if not (options.table or options.world) else [None]:
        ways = WAYS
        if options.world:
            name, world, ways = "world", read_world(options.world, options.questions), WAYS[1:]
        elif size is None:
            name, world, ways = "table", generate_split("test", TABLE_QUESTIONS, options.seed), WAYS[:1]
        else:
            name, world = f"{size}-{options.seed}", sorted_world(size, options.questions, options.seed)
        folder = options.work / name
        measure(folder, bundle, world, retrieve=options.table, threads=options.threads, ways=ways)
        print(json.dumps({name: report(folder)}, indent=2), flush=True)  # noqa: T201 - what it is for


if __name__ == "__main__":
    main()
