"""What counts as agreement of a graph with the CPU's, on outputs by hand."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.exporter.bench.gpu.agreement import LEAST_SNR_DB, agreement
from glimmer_export.runtime.contract import LOG_PROBABILITY, GraphIO, IOTensor

INPUT = "decoder_input_ids"
IO = GraphIO(
    (IOTensor(INPUT, "int32", ("batch", 1)),),
    (IOTensor("next_token", "int32", ("batch", 1)), IOTensor("logits", "float32", ("batch", 3)),
     IOTensor(LOG_PROBABILITY, "float32", ("batch", 1))),
)  # fmt: skip
SURE = -1e-5
"""Of a token with a probability of 0.99999, as the demo gives EOS."""


class Step:
    """A decoder step with these logits and log-probability."""

    def __init__(self, logits, log_probability):
        self._outputs = {
            "next_token": np.array([[0]], np.int32), "logits": np.array([logits], np.float32),
            LOG_PROBABILITY: np.array([[log_probability]], np.float32),
        }  # fmt: skip

    def run(self, inputs):
        assert inputs.keys() == {INPUT}
        return self._outputs


def agrees(candidate, reference=None) -> dict:
    reference = reference or Step([18, 6, -9], SURE)
    return agreement(IO, reference, candidate, [{INPUT: np.zeros((1, 1), np.int32), "more": 1}])


def test_a_sure_token_s_log_probability_is_off_by_the_logits_last_bit():
    bit = float(np.spacing(np.float32(18)))
    found = agrees(Step([18 + bit, 6, -9], SURE + bit / 2))
    assert found["agrees"]
    assert found["snr_db"] > 130
    assert found["runs"] == 2


@pytest.mark.parametrize(
    "wrong",
    [Step([18, 6, -9], SURE - 0.1), Step([18, 6, -9], np.nan), Step([18.2, 6, -9], SURE), Step([18, np.inf, 9], SURE)],
    ids=["log-probability", "log-probability, not finite", "logits", "logits, not finite"],
)
def test_what_is_wrong_does_not_agree(wrong):
    found = agrees(wrong)
    assert not found["agrees"]
    assert found["snr_db"] < LEAST_SNR_DB


def test_no_error_at_all():
    assert agrees(Step([18, 6, -9], SURE)) == {"snr_db": np.inf, "runs": 2, "agrees": True}
