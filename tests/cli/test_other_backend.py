"""A backend that is registered from outside by a call, here the package onnx's evaluator, and what takes it by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from glimmer_export.runtime import (
    BackendError,
    BackendKind,
    BackendOptions,
    Bundle,
    MemoryStore,
    OptionError,
    OutputError,
    Session,
    backend_names,
    register_backend,
)
from glimmer_export.runtime.backends import registry
from glimmer_export.runtime.passage_memory import encode_passages
from tests.exported import QUESTIONS, copy_bundle

CPU = "onnxruntime-cpu"


class Evaluator:
    """A whole backend."""

    opened: list[Evaluator] = []  # noqa: RUF012 - of all tests

    def __init__(self, options: BackendOptions) -> None:
        self.name, self.options, self.runs, self.closed = "evaluator", options, 0, False
        self.opened.append(self)

    def load(self, path, io):
        return EvaluatorGraph(self, ReferenceEvaluator(str(path)), io)

    def close(self):
        self.closed = True


class EvaluatorGraph:
    def __init__(self, backend, evaluator, io):
        self._backend, self._evaluator, self._io = backend, evaluator, io

    def run(self, inputs):
        self._backend.runs += 1
        names = [tensor.name for tensor in self._io.outputs]
        found = self._evaluator.run(names, {tensor.name: inputs[tensor.name] for tensor in self._io.inputs})
        return dict(zip(names, found, strict=True))


EVALUATOR = BackendKind("evaluator", "onnx", Evaluator)


@pytest.fixture
def kinds(monkeypatch):
    """What is registered in a test is so for it alone."""
    monkeypatch.setattr(registry, "_kinds", [*registry.backend_kinds()])
    monkeypatch.setattr(Evaluator, "opened", [])


@pytest.fixture
def evaluator(kinds):
    register_backend(EVALUATOR)
    return Evaluator.opened


@pytest.fixture
def ran(evaluator):
    """Says that the backend ran and was closed, each time that it was opened."""

    def check():
        assert evaluator
        assert evaluator[-1].runs
        assert all(backend.closed for backend in evaluator)

    return check


def test_a_session_answers_with_it(glimmer, ran):
    import glimmer_export

    assert "evaluator" in backend_names() == glimmer_export.BACKEND_NAMES
    with Session.open(glimmer.bundle, glimmer.store, backend="evaluator") as session:
        answers = session.answer_many(QUESTIONS)
        assert session.backend_choice.name == "evaluator"
    assert [answer.token_ids for answer in answers] == [
        answer.token_ids for answer in glimmer.session.answer_many(QUESTIONS)
    ]
    ran()


def test_auto_tries_it_before_the_cpu_if_it_says_so(glimmer, evaluator):
    def refuses(options):
        raise BackendError("backend refusing", expected="a device", found="none", fix="add one")

    with Session.open(glimmer.bundle, backend="auto") as session:
        assert session.backend_choice.name == CPU
        assert "evaluator" not in session.backend_choice.refused
    register_backend(BackendKind("refusing", "onnx", refuses, in_auto=True))
    register_backend(BackendKind("eager", "onnx", Evaluator, in_auto=True))
    with Session.open(glimmer.bundle, backend="auto") as session:
        assert session.backend_choice.name == "eager"
        assert "add one" in session.backend_choice.refused["refusing"]


def test_a_package_that_is_not_there_is_named(glimmer, kinds):
    def absent(options):
        import no_such_runtime  # noqa: F401

    register_backend(BackendKind("absent", "no_such_runtime", absent))
    with pytest.raises(BackendError, match=r"expected the package no_such_runtime, found .*no_such_runtime"):
        Session.open(glimmer.bundle, backend="absent")


@pytest.mark.parametrize("name", ["evaluator", "auto", CPU])
def test_a_name_is_registered_once(evaluator, name):
    with pytest.raises(OptionError, match="taken"):
        register_backend(BackendKind(name, "onnx", Evaluator))


def test_what_is_no_kind_is_not_registered(kinds):
    with pytest.raises(OptionError, match="a BackendKind"):
        register_backend(Evaluator)


def test_the_command_line_answers_with_it(cli, glimmer, ran):
    arguments = ("ask", glimmer.bundle, QUESTIONS[0], "--store", glimmer.store, "--json", "--backend")
    found = cli(*arguments, "evaluator").json
    assert found["backend"]["name"] == "evaluator"
    assert found["answer"] == cli(*arguments, CPU).json["answer"]
    ran()


def test_env_starts_it(cli, evaluator):
    states = {state["name"]: state for state in cli("env", "--json").json["backends"]}
    assert states["evaluator"]["works"]
    assert states["evaluator"]["detail"].startswith("onnx ")


def test_a_store_is_built_with_it(cli, glimmer, ran, tmp_path):
    output = tmp_path / "store"
    arguments = ("memory", "build", glimmer.bundle, "--corpus", glimmer.corpus, "-o", output)
    assert cli(*arguments, "--backend", "evaluator", "--json").json["passages"] > 0
    ran()
    bundle = Bundle.open(glimmer.bundle)
    with MemoryStore.open(output, bundle) as built, MemoryStore.open(glimmer.store, bundle) as wanted:
        assert built.num_passages == wanted.num_passages
        for number in range(built.num_passages):
            memories = [store.codec.decode(store.memory(number).tensors) for store in (built, wanted)]
            assert max_abs_error(*memories) <= TOLERANCES["fp16"].limit(memories[1])


def test_an_unfinished_build_keeps_to_its_backend(glimmer, evaluator, tmp_path):
    from glimmer_export.exporter.memory import build_store

    class StoppingRunner:
        def run(self, job, missing, *, advance):
            raise KeyboardInterrupt
            yield

    with pytest.raises(KeyboardInterrupt):
        build_store(glimmer.bundle, glimmer.corpus, tmp_path / "store", backend="evaluator", runner=StoppingRunner())
    plan = json.loads((tmp_path / "store.partial" / "plan.json").read_text(encoding="utf-8"))
    assert plan["backend"] == "evaluator"
    with pytest.raises(OutputError, match="expected backend onnxruntime-cpu, as asked for, found evaluator"):
        build_store(glimmer.bundle, glimmer.corpus, tmp_path / "store")
    del plan["backend"]  # as earlier versions wrote it, which knew one alone
    (tmp_path / "store.partial" / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    assert build_store(glimmer.bundle, glimmer.corpus, tmp_path / "store", threads=1).passages


def test_ranges_are_collected_with_it(cli, glimmer, ran, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question": QUESTIONS[0], "answers": ["w"]}), encoding="utf-8")
    arguments = ("calibrate", bundle, "--store", glimmer.store, "--questions", questions, "--threads", 1, "--json")
    found = cli(*arguments, "--backend", "evaluator").json
    ran()
    for graph, row in cli(*arguments).json["graphs"].items():
        assert found["graphs"][graph]["amax"] == pytest.approx(row["amax"], rel=1e-4)


@pytest.mark.parametrize(("name", "error"), [("tpu", OptionError), ("auto", OptionError), ("tensorrt", BackendError)])
def test_a_backend_that_is_none_here_leaves_nothing_behind(refused, glimmer, tmp_path, name, error):
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question": QUESTIONS[0], "answers": ["w"]}), encoding="utf-8")
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    build = ("memory", "build", bundle, "--corpus", glimmer.corpus, "-o", tmp_path / "store")
    calibrate = ("calibrate", bundle, "--store", glimmer.store, "--questions", questions)
    for command in (build, calibrate):
        assert name in refused(error, *command, "--backend", name)


def test_passages_are_encoded_in_batches_that_a_graph_takes(glimmer):
    class Narrow:
        max_batch = 2

        def run(self, inputs):
            assert len(inputs["input_ids"]) <= 2
            return glimmer.session.graphs["memory_encoder"].run(inputs)

    passages = [[3, 4, 1], [5, 1], [6, 7, 8, 1]]
    whole = encode_passages(glimmer.session.graphs["memory_encoder"], passages)
    for part, wanted in zip(encode_passages(Narrow(), passages), whole, strict=True):
        np.testing.assert_allclose(part, wanted, atol=1e-5)
