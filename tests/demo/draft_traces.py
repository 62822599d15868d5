"""Traces of drafts for `bench --draft-trace`: of a trained model's answers, or of gold answers to real questions.

    python -m tests.demo.draft_traces demo.json --bundle fp32 --store store --questions world/questions.jsonl
    python -m tests.demo.draft_traces nq.json --gold DATA/qa/nq.dev.k20.jsonl --corpus DATA/qa/corpus.jsonl \\
        --tokenizer DATA/t5_tokenizer/tokenizer.json

A trained model is asked without drafts, each question with the passages that it names: drafts change no answer, so that
which of them would be kept follows from the answers and from what was read, the best by score first. Of real questions
the five best passages by BM25 are read, and the gold one in the place of the last if it is not among them. A trace has
counts alone, no text and no token.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glimmer_export.calibration.questions import given_passages, read_questions
from glimmer_export.calibration.spread import spread
from glimmer_export.exporter.bench.draft_trace import DraftTrace, Run, runs_of
from glimmer_export.runtime import Session
from glimmer_export.runtime.contract import record_to_json
from glimmer_export.runtime.text import read_tokenizer

READ, PASSAGE_TOKENS, MAX_NEW_TOKENS = 5, 304, 32
"""The papers' m, and lengths of base size."""
T5_VOCABULARY, PAD, EOS = 32128, 0, 1


def traced_session(
    bundle: Path, store: Path, questions: Path, draft_tokens: int, limit: int
) -> Iterator[tuple[Run, ...]]:
    """The runs of a trained model's answers."""
    with Session.open(bundle, store, threads=1, draft_tokens=0) as session:
        shape, held = session.bundle.manifest.model, session.store
        assert held is not None
        for question in read_questions(questions, limit):
            answer = session.answer(question.question, passages=given_passages(question))
            read = sorted(answer.selected, key=lambda place: answer.scores[place] or 0.0, reverse=True)
            ids = held.numbers([passage.passage.id for passage in answer.passages if passage.passage.id is not None])
            passages = [held.input_ids(ids[place]).tolist() for place in read]
            tokens = [*answer.token_ids, shape.eos_token_id][: shape.max_new_tokens]
            yield runs_of(tokens, passages, draft_tokens, {shape.pad_token_id, shape.eos_token_id})


def traced_gold(
    questions: Path, corpus: Path, tokenizer: Path, draft_tokens: int, limit: int
) -> Iterator[tuple[Run, ...]]:
    """The runs of a decoder that gives the first gold answer."""
    encoder = read_tokenizer(tokenizer, T5_VOCABULARY, subject=str(tokenizer), fix="")
    passages = {row["id"]: f"{row['title']} {row['text']}" for row in rows_of(corpus)}
    rows = [row for row in rows_of(questions) if row["gold_ids"]]
    for place in spread(range(len(rows)), limit):
        row = rows[place]
        read, gold = row["ctx_ids"][:READ], row["gold_ids"]
        if not set(gold) & set(read):
            read = [*read[:-1], gold[0]]
        answer = [*encoder.encode(row["answers"][0]).ids, EOS][:MAX_NEW_TOKENS]
        texts = [encoder.encode(passages[number]).ids[: PASSAGE_TOKENS - 1] for number in read]
        yield runs_of(answer, texts, draft_tokens, {PAD, EOS})


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Of a JSONL file."""
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one trace."""
    parser = argparse.ArgumentParser(description="Record a trace of drafts.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--draft-tokens", type=int, default=4)
    parser.add_argument("--limit", type=int, default=400, help="questions, in even steps over the file")
    for name in ("bundle", "store", "questions", "gold", "corpus", "tokenizer"):
        parser.add_argument(f"--{name}", type=Path)
    asked = parser.parse_args(arguments)
    if asked.gold is not None:
        traced = traced_gold(asked.gold, asked.corpus, asked.tokenizer, asked.draft_tokens, asked.limit)
    else:
        traced = traced_session(asked.bundle, asked.store, asked.questions, asked.draft_tokens, asked.limit)
    trace = DraftTrace(asked.output.stem, asked.draft_tokens, tuple(traced))
    text = json.loads(record_to_json(trace))
    asked.output.write_text(json.dumps(text, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{asked.output}: {len(trace.questions)} questions, {trace.tokens} tokens in {trace.runs} runs, "  # noqa: T201
          f"{trace.tokens / trace.runs:.2f} a run")


if __name__ == "__main__":
    main()
