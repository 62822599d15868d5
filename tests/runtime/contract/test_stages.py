"""The table of stages beside the graphs that it speaks of, in every architecture and form."""

from __future__ import annotations

import ast
from itertools import product
from pathlib import Path

import pytest

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.runtime.contract import (
    ARCHITECTURES,
    CROSS_ATTENTION_FORMS,
    STAGE_A_FORMS,
    STAGES,
    TEXT_ENCODERS,
    TOKEN_STAGES,
    Forms,
    GraphIO,
    ModelShape,
    graph_io,
    question_stage,
    stage_of,
)
from glimmer_export.runtime.contract.stages import mask_of_output

ROOT = Path(__file__).parents[3]
WEIGHTS = ("exporter/checkpoint/", "exporter/bench/peers.py")
TINY = {
    "vocab_size": 61, "d_model": 12, "d_kv": 4, "d_ff": 20, "num_heads": 2, "num_memory_layers": 2,
    "num_stage_a_layers": 1, "num_stage_b_layers": 2, "num_decoder_layers": 1, "question_length": 6,
    "passage_length": 9, "num_retrieved": 4, "num_selected": 2, "max_new_tokens": 5,
}  # fmt: skip
LAYERS = {
    "glimmer": {}, "lumen": {"num_stage_a_layers": 0, "num_selected": None},
    "memory_fid": {"num_stage_a_layers": 0, "num_stage_b_layers": 0, "num_selected": None},
    "fid": {"num_memory_layers": 0, "num_stage_a_layers": 0, "num_selected": None},
}  # fmt: skip


def shape_of(architecture: str, *, separate: bool = False, **changed: int) -> ModelShape:
    own = {"architecture": architecture, "separate_question_encoder": separate}
    return CheckpointConfig(**{**TINY, **LAYERS[architecture], **own, **changed}).shape


def graphs_of(architecture, stage_a="full", cross_attention="cached", **options) -> dict[str, GraphIO]:
    return graph_io(shape_of(architecture, **options), Forms(("fp16",), stage_a, cross_attention))


CASES = [(name, *forms) for name, *forms in product(ARCHITECTURES, STAGE_A_FORMS, CROSS_ATTENTION_FORMS)]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_every_graph_is_in_the_table_in_the_order_of_running(case):
    graphs = list(graphs_of(*case))
    assert graphs == [name for name in STAGES if name in graphs]


def test_a_graph_in_either_form_is_of_a_stage_in_the_table():
    graphs = graph_io(shape_of("memory_fid"), Forms(("fp16", "int8"), None, "cached", both_forms=True))
    assert {stage_of(name) for name in graphs} < set(STAGES)
    assert len(graphs) > len({stage_of(name) for name in graphs})


def test_the_table_has_no_stage_that_no_model_has():
    some = {name for case in CASES for name in graphs_of(*case)} | set(graphs_of("lumen", separate=True))
    some |= set(graphs_of("glimmer", num_stage_a_layers=2, num_shortlisted=3))
    assert some == set(STAGES)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_what_the_table_names_stands_in_the_graphs(case):
    """Masks beside the outputs that they mask, and the dimensions that count rows and tokens."""
    for name, io in graphs_of(*case).items():
        stage, outputs = STAGES[name], {tensor.name.partition(".")[0] for tensor in io.outputs}
        tensors = {tensor.name for tensor in (*io.inputs, *io.outputs)}
        assert {mask for output, mask in stage.masks.items() if output in outputs} <= tensors
        assert {output for output in outputs if mask_of_output(f"{output}.0" if output == "present" else output)} == {
            output for output in outputs if output in stage.masks
        }
        dims = {dim for tensor in (*io.inputs, *io.outputs) for dim in tensor.dims}
        row = stage.row_dim(shape_of(case[0]))
        # Where stage A handed its states over, question and passage are one length in stage B.
        wanted = {row, *stage.tokens} - {None, *(("question", "passage") if "rerank_states" in tensors else ())}
        if not shape_of(case[0]).traits.encodes_question:
            wanted -= {"question"}
        assert wanted <= dims, name


@pytest.mark.parametrize("form", ["stage_a", "cross_attention"])
def test_graphs_of_one_form_alone_are_the_same_in_both(form):
    """A graph whose inputs or outputs change with a form says that it has that form."""
    values = {"stage_a": STAGE_A_FORMS, "cross_attention": CROSS_ATTENTION_FORMS}[form]
    first, second = (graphs_of("glimmer", **{form: value}) for value in values)
    changed = {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
    assert changed
    assert {STAGES[name].form for name in changed} == {form}


def test_a_question_runs_what_reads_it():
    for architecture, traits in ARCHITECTURES.items():
        shape = shape_of(architecture)
        runs = {name: STAGES[name].runs(shape, 5) for name in graphs_of(architecture)}
        assert runs.get("memory_encoder", 0) == traits.encodes_question
        assert runs["decoder_step"] == 5 - traits.prefixes_decoder
    separate = shape_of("lumen", separate=True)
    assert [STAGES[name].runs(separate, 5) for name in TEXT_ENCODERS] == [0, 1]
    assert (question_stage(separate), question_stage(shape_of("lumen"))) == ("question_encoder", "memory_encoder")


def test_what_chooses_a_token_has_one_to_give():
    graphs = graphs_of("memory_fid")
    assert [name for name, io in graphs.items() if any(out.name == "next_token" for out in io.outputs)] == [
        *TOKEN_STAGES
    ]


def test_a_graphs_name_is_written_in_the_table_alone():
    """Elsewhere it is the table's constant. Weights of the two text encoders have the same names, which are others."""
    named = {}
    modules = (path for package in ("runtime", "exporter", "calibration") for path in (ROOT / package).rglob("*.py"))
    for path in sorted(modules):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned = (node for node in tree.body if isinstance(node, ast.Assign))
        listed = (node for node in assigned if getattr(node.targets[0], "id", "") == "__all__")
        exports = {constant for node in listed for constant in ast.walk(node)}
        place = path.relative_to(ROOT).as_posix()
        wanted = STAGES.keys() - {"encoder"} - (set(TEXT_ENCODERS) if place.startswith(WEIGHTS) else set())
        found = [
            node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node.value in wanted and node not in exports
        ]
        if found:
            named[place] = found
    assert list(named) == ["runtime/contract/stages.py"]
