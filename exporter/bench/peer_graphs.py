"""ONNX graphs of peers in the engines that their users would run them in: ONNX Runtime or OpenVINO, on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glimmer_export.exporter.bench.roster import OPENVINO
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.backends.openvino_library import import_openvino
from glimmer_export.runtime.contract import BackendError

__all__ = ["PeerGraph", "open_peer_graph", "quantize_as_users_do"]

PeerGraph = Callable[[Mapping[str, Array]], dict[str, Array]]
"""Inputs by name -> outputs by name, which are the caller's."""


def open_peer_graph(path: Path, engine: str, precision: str, threads: int) -> PeerGraph:
    """Open a graph on `threads` threads; of `precision` only `bf16` changes anything, which OpenVINO computes in.

    Raises BackendError where OpenVINO would compute in another precision than the one asked for.
    """
    return _in_openvino(path, precision, threads) if engine == OPENVINO else _in_onnxruntime(path, threads)


def _in_onnxruntime(path: Path, threads: int) -> PeerGraph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # As our own backend has it, so that a comparison of times is of the graphs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


def _in_openvino(path: Path, precision: str, threads: int) -> PeerGraph:
    core = import_openvino().Core()
    hint = PRECISIONS[precision]
    compiled: Any = core.compile_model(
        core.read_model(path), "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": hint,
        },
    )  # fmt: skip
    computes_in = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if computes_in != hint:
        raise BackendError(
            f"OpenVINO, for {path.name}", expected=f"to compute in {hint}", found=computes_in,
            fix="leave this peer out, or measure on a CPU that computes in it",
        )
    request = compiled.create_infer_request()
    names = [output.any_name for output in compiled.outputs]

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        found = request.infer(dict(inputs), share_inputs=True)
        return dict(zip(names, found.values(), strict=True))

    return run


def quantize_as_users_do(fp32: Path, int8: Path) -> None:
    """ONNX Runtime's dynamic quantisation as its users run it: weights signed and by channel, the rest its defaults."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to shape-infer, which the graphs of peers are
    try:
        # Of what ONNX Runtime's own fused operators give it knows no type.
        quantize_dynamic(
            fp32, int8, weight_type=QuantType.QInt8, per_channel=True,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    finally:
        logging.disable(level)
