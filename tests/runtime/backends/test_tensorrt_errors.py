"""What goes wrong with TensorRT, and by what name: on fakes, with no GPU."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys

import pytest

from glimmer_export.runtime import Session
from glimmer_export.runtime.backends.tensorrt import TensorRTBackend
from glimmer_export.runtime.backends.tensorrt.engine_graph import EngineGraph
from glimmer_export.runtime.backends.tensorrt.library import Library
from glimmer_export.runtime.contract import (
    ENGINE_RECORD,
    ENGINES,
    BackendError,
    BundleError,
    DeviceLostError,
    DeviceMemoryError,
    OptionError,
)
from tests.exported import QUESTIONS, copy_bundle
from tests.runtime.backends.fake_cuda import FakeCuda
from tests.runtime.backends.fake_tensorrt import FakeTensorRT, write_engines

UNCAPTURED = "^engine of decoder_step, .* runs without CUDA graphs, which is slower"
"""How the warning begins that a decoder step's loops are queued run by run."""


@pytest.fixture
def bundle(glimmer, engined, tmp_path):
    """A copy to damage."""
    return shutil.copytree(engined(glimmer), tmp_path / "bundle")


def engines(bundle):
    (directory,) = (bundle / ENGINES).iterdir()
    return directory


def change_record(bundle, change) -> None:
    path = engines(bundle) / ENGINE_RECORD
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def ask(source, session, question=QUESTIONS[0]) -> None:
    assert session.answer(question).token_ids == source.session.answer(question).token_ids


class TestEnginesOfAnother:
    @pytest.mark.parametrize(
        "traits", [{"capability": (8, 7)}, {"version": "10.4.0"}], ids=["compute capability", "version"]
    )
    def test_device_or_version(self, glimmer, engined, gpu, traits):
        gpu(**traits)
        with pytest.raises(BackendError, match=r"found tensorrt-10\.3\.0-sm75-fake-t4; .*`glimmer-export build`"):
            Session.open(engined(glimmer), backend="tensorrt")

    def test_gpu_of_the_same_capability(self, glimmer, engined, gpu):
        gpu(name="Quadro RTX")
        with pytest.raises(BackendError, match="for this Quadro RTX"):
            Session.open(engined(glimmer), backend="tensorrt")

    def test_library(self, glimmer, engined, gpu):
        gpu("tensorrt_rtx")
        with pytest.raises(BackendError, match=r"engines tensorrt-rtx-1\.7\.1\.116-sm75"):
            Session.open(engined(glimmer), backend="tensorrt-rtx")

    def test_graph(self, bundle, gpu):
        gpu()
        change_record(bundle, lambda data: data["engines"]["decoder_step"].update(graph_sha256="0" * 64))
        with pytest.raises(BackendError, match=r"decoder_step, found one of another graph; .*glimmer-export build"):
            Session.open(bundle, backend="tensorrt")

    def test_none_at_all(self, glimmer, gpu):
        gpu()
        with pytest.raises(BackendError, match=r"found none; .*`glimmer-export build`"):
            Session.open(glimmer.bundle, backend="tensorrt")


def test_engines_for_any_device_of_a_capability_serve(glimmer, gpu, tmp_path):
    library = gpu(name="Tesla T4")
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    key = library.key
    write_engines(bundle, type(key)(key.library, key.version, key.compute_capability, None))
    with Session.open(bundle, glimmer.store, backend="tensorrt") as session:
        ask(glimmer, session)


class TestDamage:
    def test_an_engine_is_missing_from_the_record(self, bundle, gpu):
        gpu()
        change_record(bundle, lambda data: data["engines"].pop("live_stage_b"))
        with pytest.raises(BackendError, match="graph live_stage_b, found none"):
            Session.open(bundle, backend="tensorrt")

    def test_a_file_is_missing(self, bundle, gpu):
        gpu()
        (engines(bundle) / "live_stage_b.engine").unlink()
        with pytest.raises(BundleError, match=r"live_stage_b\.engine: expected a readable file, found none"):
            Session.open(bundle, backend="tensorrt")

    def test_a_file_is_a_fifo(self, bundle, gpu):
        gpu()
        (engines(bundle) / "live_stage_b.engine").unlink()
        os.mkfifo(engines(bundle) / "live_stage_b.engine")
        with pytest.raises(BundleError, match=r"live_stage_b\.engine: expected a regular file, found a FIFO"):
            Session.open(bundle, backend="tensorrt")

    def test_a_file_is_cut(self, bundle, gpu):
        gpu()
        path = engines(bundle) / "live_stage_b.engine"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(BundleError, match="bytes, found"):
            Session.open(bundle, backend="tensorrt")

    def test_a_byte_is_changed(self, bundle, gpu):
        gpu()
        path = engines(bundle) / "live_stage_b.engine"
        content = bytearray(path.read_bytes())
        content[50] ^= 1
        path.write_bytes(content)
        with pytest.raises(BundleError, match="expected SHA-256"):
            Session.open(bundle, backend="tensorrt")

    def test_the_library_refuses_it(self, glimmer, engined, gpu, monkeypatch):
        gpu()
        monkeypatch.setattr(FakeTensorRT, "_deserialize", lambda self, content: None)
        # The module was made with the method of before.
        monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", lambda logger: Refusing())
        with pytest.raises(BundleError, match=r"an engine that tensorrt 10\.3\.0 loads"):
            Session.open(engined(glimmer), backend="tensorrt")

    def test_it_has_other_tensors(self, glimmer, gpu, tmp_path):
        library = gpu()
        bundle = copy_bundle(glimmer, tmp_path / "bundle")
        directory = write_engines(bundle, library.key)
        for change in (
            lambda data: data["inputs"].pop(), lambda data: data["outputs"][0].update(dtype="float16"),
            lambda data: data["inputs"][0].update(dims=[-1]), lambda data: data["inputs"][0].update(dims=[-1, -1, 33]),
        ):  # fmt: skip
            data = json.loads((directory / "live_stage_a.engine").read_bytes())
            change(data)
            loaded = Library("tensorrt").engine(json.dumps(data).encode(), "engine", None)
            with pytest.raises(BundleError, match=r"I/O.*glimmer-export build"):
                EngineGraph(loaded, glimmer.io["live_stage_a"], None, captures=False)


class Refusing:
    def deserialize_cuda_engine(self, content):
        return None


class TestWhatIsNotInstalled:
    def test_the_library(self, glimmer, monkeypatch):
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
        with pytest.raises(BackendError, match=r"the package tensorrt, found none; install it"):
            TensorRTBackend(glimmer.bundle)

    def test_cuda_python(self, glimmer, monkeypatch, gpu):
        FakeTensorRT(FakeCuda()).install(monkeypatch)
        for name in ("cuda", "cuda.bindings"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(BackendError, match="the package cuda-python, found none"):
            TensorRTBackend(glimmer.bundle)

    @pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "12.0.0"])
    def test_a_version_that_is_served(self, glimmer, gpu, version):
        gpu(version=version)
        with pytest.raises(BackendError, match=f"TensorRT 10.3 to 11, found {version}"):
            TensorRTBackend(glimmer.bundle)

    @pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.0.0", "11.4.1"])
    def test_versions_that_are(self, glimmer, gpu, version):
        gpu(version=version)
        with pytest.raises(BackendError, match="glimmer-export build"):
            TensorRTBackend(glimmer.bundle)

    def test_a_driver(self, glimmer, gpu):
        gpu().cuda.fail("cudaGetDeviceCount", "cudaErrorInsufficientDriver")
        with pytest.raises(BackendError, match="an NVIDIA GPU and its driver, found cudaErrorInsufficientDriver"):
            TensorRTBackend(glimmer.bundle)

    def test_a_gpu(self, glimmer, gpu):
        gpu(count=0)
        with pytest.raises(BackendError, match="an NVIDIA GPU and its driver, found none"):
            TensorRTBackend(glimmer.bundle)


def test_the_earlier_place_of_cuda_python(glimmer, engined, monkeypatch):
    cuda = FakeCuda().install(monkeypatch, earlier=True)
    FakeTensorRT(cuda).install(monkeypatch)
    with Session.open(engined(glimmer), glimmer.store, backend="tensorrt") as session:
        ask(glimmer, session)
    cuda.check_clean()


class TestMemory:
    def test_too_little_is_named_and_the_session_goes_on(self, glimmer, engined, gpu):
        gpu(total_bytes=100_000)
        with Session.open(engined(glimmer), glimmer.store, backend="tensorrt") as session:
            ask(glimmer, session)
            many = [f"p{2 * number}" for number in range(16)]
            with pytest.raises(DeviceMemoryError, match=r"expected [\d,]+ bytes, found [\d,]+ bytes free of 100,000"):
                session.answer_many(QUESTIONS, passages=[many] * len(QUESTIONS))
            for question in QUESTIONS:
                ask(glimmer, session, question)

    def test_what_is_kept_makes_room(self, glimmer, engined, gpu):
        """Buffers of other sizes and cached passages go, before anything fails."""
        library = gpu(total_bytes=150_000)
        bundle = engined(glimmer)
        with Session.open(bundle, glimmer.store, backend="tensorrt", passage_cache_bytes=60_000) as session:
            for count in range(1, 17):
                ids = [f"p{2 * number}" for number in range(count)]
                expected = glimmer.session.answer("w1", passages=ids)
                assert session.answer("w1", passages=ids).token_ids == expected.token_ids
            assert library.cuda.calls["cudaFree"] > 0

    @pytest.mark.parametrize("function", ["cudaMalloc", "cudaHostAlloc"])
    @pytest.mark.parametrize("after", range(0, 8, 2))
    def test_an_allocation_fails_anywhere(self, glimmer, engined, gpu, function, after):
        library = gpu()
        with Session.open(engined(glimmer), glimmer.store, backend="tensorrt") as session:
            for place in range(after, after + 8):  # whoever asks again, and for less, gets nothing either
                library.cuda.fail(function, "cudaErrorMemoryAllocation", after=place)
            with pytest.raises(DeviceMemoryError, match=function):
                session.answer_many(QUESTIONS)
            library.cuda.mend()
            ask(glimmer, session)

    def test_no_memory_for_a_context(self, glimmer, engined, gpu):
        library = gpu()
        with Session.open(engined(glimmer), glimmer.store, backend="tensorrt") as session:
            library.refuses_contexts = True
            with pytest.raises(BackendError, match="an execution context"):
                session.answer(QUESTIONS[0])
            library.refuses_contexts = False
            ask(glimmer, session)

    def test_a_passage_cache_has_no_place_in_shared_memory(self, glimmer, engined, gpu):
        library = gpu(integrated=True)
        with pytest.raises(OptionError, match="shares the host's memory"):
            Session.open(engined(glimmer), backend="tensorrt", passage_cache_bytes=1000)
        assert not library.cuda.faults


class TestALostDevice:
    @pytest.mark.parametrize("after", [0, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70])
    def test_is_named_once_and_for_all(self, glimmer, engined, gpu, after):
        library = gpu()
        with Session.open(engined(glimmer), glimmer.store, backend="tensorrt") as session:
            library.cuda.lose(after=after)
            with pytest.raises(DeviceLostError, match=r"GPU Fake T4.*cudaErrorIllegalAddress; end this process"):
                session.answer_many(QUESTIONS)
            calls = sum(library.cuda.calls.values())
            with pytest.raises(DeviceLostError):
                session.answer(QUESTIONS[0])
            assert sum(library.cuda.calls.values()) == calls

    def test_between_two_questions_and_at_the_end(self, glimmer, engined, gpu):
        library = gpu()
        with Session.open(engined(glimmer), glimmer.store, backend="tensorrt") as session:
            ask(glimmer, session)
            library.cuda.lose()

    def test_may_show_as_tensorrts_refusal(self, glimmer, engined, gpu):
        library = gpu()
        with Session.open(engined(glimmer), glimmer.store, backend="tensorrt") as session:
            library.refuses_runs = True
            with pytest.raises(BackendError, match="to be queued") as refused:
                session.answer(QUESTIONS[0])
            assert not isinstance(refused.value, DeviceLostError)
            library.refuses_runs = False
            ask(glimmer, session)


class TestCapture:
    @pytest.mark.parametrize("function", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"])
    def test_that_fails_costs_time_alone(self, glimmer, engined, gpu, function):
        library = gpu()
        with Session.open(engined(glimmer), glimmer.store, backend="tensorrt") as session:
            library.cuda.fail(function, "cudaErrorStreamCaptureUnsupported")
            with pytest.warns(UserWarning, match=rf"{UNCAPTURED}: CUDA, {function}: .* found cudaErrorStreamCapture"):
                ask(glimmer, session)
            for question in QUESTIONS:
                ask(glimmer, session, question)
        assert library.cuda.calls["cudaGraphLaunch"] == 0

    def test_without_memory_for_its_context(self, glimmer, engined, gpu):
        library = gpu()
        with Session.open(engined(glimmer), glimmer.store, backend="tensorrt") as session:
            session.answer(QUESTIONS[0], passages=["p0"])
            assert library.cuda.calls["cudaGraphInstantiate"] > 0
            library.refuses_contexts = True
            with pytest.warns(UserWarning, match=rf"{UNCAPTURED}: .* expected an execution context .* found none"):
                session.answer(QUESTIONS[0], passages=["p0", 1])
            ask(glimmer, session)


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt_rtx"])
def test_a_closed_session_lets_go_of_the_engines(glimmer, engined, gpu, library):
    """Their weights are in the GPU's memory; the session may be referred to for long."""
    module = gpu(library)
    session = Session.open(engined(glimmer, library), glimmer.store, backend=library.replace("_", "-"))
    for question in QUESTIONS:
        ask(glimmer, session, question)
    assert len(module.engines) == len(session.graphs)
    session.close()
    gc.collect()
    assert not module.engines


def test_a_closed_session_is_named(glimmer, engined, gpu):
    gpu()
    session = Session.open(engined(glimmer), glimmer.store, backend="tensorrt")
    ask(glimmer, session)
    session.close()
    session.close()
    with pytest.raises(BackendError, match="a closed one"):
        session.graphs["decoder_step"].launch(session.graphs["decoder_step"].device.zeros({}))
