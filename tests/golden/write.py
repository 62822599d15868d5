"""Writes golden files: `python -m tests.golden.write DIRECTORY`, at the commit whose formats they keep.

Run when a format gets another schema version, before the change that makes the older one old; what was written is never
written again. What lies in `tests/golden` itself is of bundle schema 4, store schema 2, parity schema 1; `schema5` is
of bundle schema 5, store schema 3, parity schema 2, with fewer codecs and a FiD that joins questions with passages;
`schema6` is of bundle schema 6, with an FP16 bundle, whose graphs' inputs and outputs were all FP32 then; `schema7` is
of bundle schema 7: its files do not name their format; `schema8` is of bundle schema 8, before a reranker could be
separate; of bundle schema 9, whose decoder steps took one token, `schema9` keeps the FiD alone. Weights that an earlier
schema's bundle has too are not kept again: `whole` puts them in place. `store5` is by write_store.py.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bundle import FormOptions, export_bundle
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.memory import append_passages, build_store, convert_store, delete_passages
from glimmer_export.exporter.parity import ParityOptions, ParityRequest, run_parity
from glimmer_export.runtime import Passage, Session
from glimmer_export.runtime.contract import CODECS
from tests.bundle_factory import write_rows
from tests.exported import CORPUS, QUESTIONS, make_checkpoint

NEW = {"id": "new", "title": "w1", "text": "w0 w7 w7"}
DELETED = 3


def write_golden(directory: Path) -> None:
    """A bundle with a parity record, bundles in INT8 and FP16, stores, a FiD; and what they answer."""
    directory.mkdir(parents=True)
    with TemporaryDirectory() as work:
        make_checkpoint(Path(work) / "checkpoint", "glimmer, codecs")
        bundle = directory / "bundle"
        forms = FormOptions(stage_a=None, cross_attention="absorbed", codecs=tuple(CODECS)[:2])
        export_bundle(Path(work) / "checkpoint", bundle, forms)
        corpus = write_rows(Path(work) / "corpus.jsonl", CORPUS)
        build_store(bundle, corpus, directory / "store-fp16", passages_per_shard=16, threads=1)
        for codec in tuple(CODECS)[1:2]:
            convert_store(directory / "store-fp16", directory / f"store-{codec}", codec)
        new = write_rows(Path(work) / "new.jsonl", [NEW])
        append_passages(directory / "store-fp16", bundle, new, threads=1)
        delete_passages(directory / "store-fp16", [DELETED])
        with Session.open(bundle, directory / "store-int8", threads=1) as session:
            found = session.answer_many(QUESTIONS)
        rows = [Question(str(place), row.question, (row.answer,), None, (1,)) for place, row in enumerate(found)]
        calibrated = shutil.copytree(bundle, Path(work) / "bundle")
        calibrate_bundle(calibrated, directory / "store-int8", rows, CalibrationOptions(threads=1))
        quantize_bundle(calibrated, directory / "bundle-int8", QuantizeOptions("int8", "cpu", cpu="x86-vnni"))
        quantize_bundle(calibrated, directory / "bundle-fp16", QuantizeOptions("fp16", "tensorrt"))
        request = ParityRequest(
            bundle, checkpoint=Path(work) / "checkpoint", store=directory / "store-int8",
            options=ParityOptions(threads=1), gate="default",
        )
        run_parity(request, rows)
        make_checkpoint(Path(work) / "fid", "fid, its own code")
        export_bundle(Path(work) / "fid", directory / "bundle-fid", FormOptions(None, "cached"))
    (directory / "answers.json").write_text(json.dumps(answers(directory), indent=1) + "\n", encoding="utf-8")


def answers(directory: Path) -> dict[str, list[dict[str, object]]]:
    """What the bundle answers from each store, and a FiD: the tokens, and the ids and scores of the passages."""
    found = {}
    for store in sorted(directory.glob("store-*")):
        with Session.open(directory / "bundle", store, threads=1) as session:
            found[store.name] = [
                {
                    "tokens": list(answer.token_ids), "ids": [item.passage.id for item in answer.passages],
                    "scores": [round(item.score, 4) for item in answer.passages if item.score is not None],
                }
                for answer in session.answer_many(QUESTIONS)
            ]
    fid = directory / "bundle-fid"
    if fid.is_dir():
        with Session.open(fid, threads=1) as session:
            given = [Passage(row["id"], row["title"], row["text"]) for row in CORPUS[:4]]
            found["bundle-fid"] = [
                {"tokens": list(answer.token_ids), "ids": [item.passage.id for item in answer.passages], "scores": []}
                for answer in session.answer_many(QUESTIONS, passages=[given] * len(QUESTIONS))
            ]
    return found


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
