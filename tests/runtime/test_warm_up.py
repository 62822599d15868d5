"""A session that was warmed up has run each of its graphs, on what questions look like, and answers as before."""

from __future__ import annotations

import shutil

import pytest

from glimmer_export.exporter.memory import delete_passages
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from tests.exported import CORPUS, QUESTIONS, VARIANTS


class Recording(OnnxRuntimeBackend):
    """Keeps the inputs of each graph's runs."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.runs: dict[str, list[dict[str, object]]] = {}

    def load(self, path, io):
        graph, runs = super().load(path, io), self.runs.setdefault(path.stem, [])

        class Kept:
            def run(self, inputs):
                runs.append(dict(inputs))
                return graph.run(inputs)

        return Kept()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("with_store", [True, False])
def test_every_graph_runs_on_what_is_no_padding(exported, variant, with_store):
    source, backend = exported(variant), Recording()
    passages = None if with_store else [row["text"] + " w1" for row in CORPUS[:3]]
    with Session.open(source.bundle, source.store if with_store else None, backend=backend) as session:
        before = session.answer(QUESTIONS[0], passages=passages)
        for runs in backend.runs.values():
            runs.clear()
        session.warm_up()
        assert backend.runs
        assert all(backend.runs.values()), {name: len(runs) for name, runs in backend.runs.items()}
        shape = source.shape
        decoded = sum(len(backend.runs.get(name, ())) for name in ("decoder_step", "decoder_prefill"))
        assert decoded == shape.max_new_tokens
        for name, runs in backend.runs.items():
            for ids in (inputs["input_ids"] for inputs in runs if "input_ids" in inputs):
                assert len({*ids.ravel().tolist()}) > 3, name
        if shape.traits.has_memory:
            reading = backend.runs.get("live_stage_a") or backend.runs["live_stage_b"]
            assert reading[0]["memory_mask"].shape == (1, shape.num_retrieved, shape.passage_length)
        after = session.answer(QUESTIONS[0], passages=passages)
        assert (after.token_ids, after.scores) == (before.token_ids, before.scores)


def test_a_store_of_no_passages_warms_up_on_texts(glimmer, tmp_path):
    store = shutil.copytree(glimmer.store, tmp_path / "store")
    delete_passages(store, [row["id"] for row in CORPUS])
    with Session.open(glimmer.bundle, store, threads=1) as session:
        session.warm_up()
        assert session.answer("w1").answer is None
