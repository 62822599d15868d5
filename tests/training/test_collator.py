"""Batches of rows: the runtime's tokens, joined texts, frozen memory, dev rows in their order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glimmer_export.exporter.memory import CorpusSource
from glimmer_export.exporter.stages import GlimmerModel, model_from_checkpoint
from glimmer_export.exporter.training.batch import IGNORED
from glimmer_export.exporter.training.collator import Collator
from glimmer_export.exporter.training.frozen_memory import FrozenMemory, open_store
from glimmer_export.exporter.training.passages import PassageTable, open_corpus
from glimmer_export.exporter.training.rows import RowOptions, TaskFile, rows_from_files
from glimmer_export.exporter.training.sampling import Draw, Sampler
from glimmer_export.runtime.contract import TrainingError
from tests.exported import CORPUS, QUESTIONS

ROWS = [
    {"question": question, "answers": ["w1", "w2 w3"], "ctx_ids": [row["id"] for row in CORPUS[number : number + 4]],
     "gold_ids": [CORPUS[number + 1]["id"]]}
    for number, question in enumerate(QUESTIONS)
]  # fmt: skip


@pytest.fixture
def files(write):
    return [TaskFile(write("rows.jsonl", *ROWS))]


def unpadded(values, mask):
    """Rows of ids without what is masked."""
    return [ids[: int(kept.sum())].tolist() for ids, kept in zip(values, mask, strict=True)]


def test_a_batch_holds_the_runtimes_tokens(files, text, corpus):
    with open_corpus(CorpusSource.of(corpus), searched=False) as source:
        rows = rows_from_files(files, PassageTable(text, source), RowOptions(4, given=True))
        batch = Collator(rows).batch([Draw(2, rows.candidates[2][[1, 3]], 1), Draw(0, rows.candidates[0][:1], 0)])
    assert unpadded(*batch.question) == [text.question(QUESTIONS[2]), text.question(QUESTIONS[0])]
    passages = [text.passage(CORPUS[number]["title"], CORPUS[number]["text"])[0] for number in (3, 5, 0)]
    assert unpadded(*(values.flatten(0, 1) for values in batch.passages)) == [*passages, []]
    assert batch.passages.values.shape == (2, 2, max(map(len, passages)))
    assert batch.labels.tolist() == [text.answer("w2 w3"), [*text.answer("w1"), IGNORED]]
    assert batch.gold.tolist() == [[True, False], [False, False]]


def test_a_joined_batch_holds_question_and_passage(files, joined_text, joined_checkpoint, corpus):
    with open_corpus(CorpusSource.of(corpus), searched=False) as source:
        rows = rows_from_files(files, PassageTable(joined_text, source), RowOptions(4, given=True))
        batch = Collator(rows).batch([Draw(1, rows.candidates[1][:2], 0)])
    wanted = [joined_text.joined(QUESTIONS[1], CORPUS[n]["title"], CORPUS[n]["text"])[0] for n in (1, 2)]
    assert unpadded(batch.passages.values[0], batch.passages.mask[0]) == wanted
    model: GlimmerModel = model_from_checkpoint(joined_checkpoint)
    assert model.encode_texts(batch.question, batch.passages, None).states.isfinite().all()


def test_frozen_memory_stands_in_the_place_of_tokens(files, glimmer, checkpoint, text):
    """The scores from memory of the store are those from its texts, within what FP16 keeps."""
    store, _ = open_store(glimmer.store, checkpoint, own=True)
    with store:
        rows = rows_from_files(files, PassageTable(text, store, stored=store), RowOptions(4, given=True))
        draws = Sampler(rows, seed=0, gold="among").draw(6, 3)
        frozen, encoded = Collator(rows, FrozenMemory(store)).batch(draws), Collator(rows).batch(draws)
    assert torch.equal(frozen.passages.mask, encoded.passages.mask)
    assert torch.equal(frozen.labels, encoded.labels)
    assert torch.equal(frozen.gold, encoded.gold)
    model: GlimmerModel = model_from_checkpoint(checkpoint)
    from_memory = model.encode(frozen.question, frozen.passages, 2)
    from_texts = model.encode_texts(encoded.question, encoded.passages, 2)
    torch.testing.assert_close(from_memory.scores, from_texts.scores, rtol=1e-2, atol=1e-2)


def test_no_store_has_memory_of_texts_that_were_given(write, glimmer, checkpoint, text):
    row = {"question": "w1", "answers": ["w2"], "ctxs": [{"text": "w3"}]}
    store, _ = open_store(glimmer.store, checkpoint, own=True)
    with store:
        rows = rows_from_files([TaskFile(write("a.jsonl", row))], PassageTable(text, store), RowOptions(1, given=True))
        with pytest.raises(TrainingError, match=r"frozen memory: expected passages of the store, found 1 given"):
            Collator(rows, FrozenMemory(store))


def test_dev_rows_come_in_their_order_with_their_first_passages(files, text, corpus):
    with open_corpus(CorpusSource.of(corpus), searched=False) as source:
        rows = rows_from_files(files, PassageTable(text, source), RowOptions(4, given=True))
    batches = list(Collator(rows).dev_batches(3, 2))
    assert [len(batch) for batch in batches] == [3, 3, 2]
    questions = [ids for batch in batches for ids in unpadded(*batch.question)]
    assert questions == [text.question(question) for question in QUESTIONS]
    assert all(batch.passages.mask.shape[1] == 2 for batch in batches)
    assert all(batch.gold.tolist() == [[False, True]] * len(batch) for batch in batches)
    assert {tuple(ids.tolist()) for batch in batches for ids in batch.labels} == {tuple(text.answer("w1"))}
    assert np.array_equal(rows.task, np.zeros(len(ROWS)))
