"""What makes the TensorRT backend fast can be switched off, to be measured: answers stay; on fakes, with no GPU."""

from __future__ import annotations

import pytest

from glimmer_export.runtime import Session
from glimmer_export.runtime.backends.tensorrt import TensorRTBackend
from tests.exported import QUESTIONS
from tests.reference_answers import assert_same_scores


def answers(source, bundle, library, **switches):
    """Counts of CUDA's calls until all questions were answered, each as on the CPU."""
    backend = TensorRTBackend(bundle, **switches)
    with Session.open(bundle, source.store, backend=backend, verify=False) as session:
        for question in QUESTIONS:
            answer, expected = session.answer(question), source.session.answer(question)
            assert answer.token_ids == expected.token_ids
            assert_same_scores(answer, expected)
    calls = library.cuda.calls.copy()
    backend.close()
    return calls


@pytest.mark.parametrize("order", [None, 4])
def test_without_cuda_graphs_nothing_is_captured(glimmer, engined, gpu, order):
    library = gpu(order=order)
    assert answers(glimmer, engined(glimmer), library)["cudaGraphLaunch"] > 0
    library = gpu(order=order)
    calls = answers(glimmer, engined(glimmer), library, cuda_graphs=False)
    assert calls["cudaGraphLaunch"] == calls["cudaStreamBeginCapture"] == 0


@pytest.mark.parametrize("order", [None, 4])
def test_without_overlap_passages_come_by_the_stream_of_the_graphs(glimmer, engined, gpu, order):
    library = gpu(order=order)
    assert answers(glimmer, engined(glimmer), library, passage_cache_bytes=4000)["cudaStreamCreateWithFlags"] == 2
    library = gpu(order=order)
    calls = answers(glimmer, engined(glimmer), library, overlap=False, passage_cache_bytes=4000)
    assert calls["cudaStreamCreateWithFlags"] == 1
