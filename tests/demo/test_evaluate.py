"""A demo checkpoint is graded as `answer` and `parity` grade."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from glimmer_export.exporter.demo import evaluate as evaluate_module
from glimmer_export.exporter.demo.tokenizer import EOS_ID, build_tokenizer
from glimmer_export.exporter.demo.world import generate_split

MODEL = SimpleNamespace(shared=SimpleNamespace(weight=torch.zeros(1)))


def test_an_answer_of_nothing_is_wrong_whatever_its_golds(monkeypatch):
    def silent(model, batch):
        size, num_passages, _ = batch.passage_ids.shape
        return torch.full((size, 1), EOS_ID), torch.arange(num_passages).expand(size, -1)

    monkeypatch.setattr(evaluate_module, "answer", silent)
    world = generate_split("test", 20, seed=0)
    for question in world.questions:
        question["answers"] = ["The The", "a"]
    evaluation = evaluate_module.evaluate(MODEL, build_tokenizer(), world)
    assert (evaluation.num_questions, evaluation.em, evaluation.em_withheld) == (len(world.questions), 0.0, 0.0)
    assert set(evaluation.em_by_task.values()) == {0.0}
