"""The demo's questions have the same answers, read from the same passages, in every form of the graphs."""

from __future__ import annotations

from glimmer_export.exporter.demo.world import generate_split, write_world
from glimmer_export.exporter.memory import build_store
from glimmer_export.runtime import Session
from glimmer_export.runtime.contract import read_manifest

NUM_QUESTIONS = 300
BATCH = 25


def test_every_answer_and_every_selection_is_the_same(demo_bundles, tmp_path):
    forms = [read_manifest(bundle).forms for bundle in demo_bundles.values()]
    assert [(form.stage_a, form.cross_attention) for form in forms] == [("lazy", "absorbed"), ("full", "cached")]
    world = generate_split("test", NUM_QUESTIONS, seed=3)
    write_world(tmp_path, world)
    build_store(demo_bundles["exact algebra"], tmp_path / "corpus.jsonl", tmp_path / "store", threads=1)
    answers = []
    for bundle in demo_bundles.values():
        with Session.open(bundle, tmp_path / "store", threads=1) as session:
            found = []
            for start in range(0, NUM_QUESTIONS, BATCH):
                rows = world.questions[start : start + BATCH]
                found += session.answer_many(
                    [row["question"] for row in rows], passages=[row["ctx_ids"] for row in rows]
                )
            answers.append([(answer.error, answer.token_ids, answer.selected) for answer in found])
    ours, paper = answers
    assert len(ours) == NUM_QUESTIONS
    assert ours == paper
    assert len({tokens for _, tokens, _ in ours}) > NUM_QUESTIONS // 4
