"""A graph with the I/O of a decoder's step and integer arithmetic in its place, so that any mix-up shows in its tokens.

next_token = (3 * decoder_input_ids + step + the sum of the mask + the sum of the cache) mod 97; the cache grows by the
token; logits are the token and the position as they are.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node as node

from glimmer_export.runtime.backends import LoopIO
from glimmer_export.runtime.backends.cuda import Cuda
from glimmer_export.runtime.backends.tensorrt.device import CudaDevice
from glimmer_export.runtime.backends.tensorrt.engine_graph import EngineGraph
from glimmer_export.runtime.backends.tensorrt.library import Library
from glimmer_export.runtime.contract import GraphIO, IOTensor

__all__ = ["IO", "LOOP", "answer", "dims", "expected", "open_graph", "write_step_graph"]

MODULUS = 97
CACHE = ("batch", 2, 4, 3)
LAYERS = ("0.decoder.key", "0.decoder.value")
IO = GraphIO(
    (
        IOTensor("decoder_input_ids", "int32", ("batch", 1)), IOTensor("step", "int32", ("batch",)),
        IOTensor("encoder_attention_mask", "int32", ("batch", "encoder_tokens")),
        *(IOTensor(f"past_key_values.{layer}", "float32", CACHE) for layer in LAYERS),
    ),
    (
        IOTensor("next_token", "int32", ("batch", 1)), IOTensor("logits", "float32", ("batch", 2)),
        *(IOTensor(f"present.{layer}", "float32", CACHE) for layer in LAYERS),
    ),
)
LOOP = LoopIO(
    {"decoder_input_ids": "next_token"} | {f"past_key_values.{layer}": f"present.{layer}" for layer in LAYERS}, "step",
    ("next_token", "next_token_log_probability"), ("logits",),
)  # fmt: skip
TYPES = {"int32": TensorProto.INT32, "float32": TensorProto.FLOAT}


def write_step_graph(folder: Path) -> Path:
    """Write the graph, and an "engine" of it for FakeTensorRT, whose path it returns."""
    constants = {"three": 3, "modulus": MODULUS}
    nodes = [
        node("ReduceSum", ["encoder_attention_mask", "last"], ["masked"], keepdims=1),
        node("Unsqueeze", ["step", "last"], ["position"]),
        node("Cast", ["past_key_values.0.decoder.key"], ["cache"], to=TensorProto.INT32),
        node("ReduceSum", ["cache", "behind"], ["cached"], keepdims=0),
        node("Unsqueeze", ["cached", "last"], ["cached_column"]),
        node("Mul", ["decoder_input_ids", "three"], ["tripled"]),
        node("Add", ["tripled", "position"], ["first"]), node("Add", ["first", "masked"], ["second"]),
        node("Add", ["second", "cached_column"], ["third"]), node("Mod", ["third", "modulus"], ["next_token"]),
        node("Cast", ["next_token"], ["token"], to=TensorProto.FLOAT),
        node("Cast", ["position"], ["place"], to=TensorProto.FLOAT),
        node("Concat", ["token", "place"], ["logits"], axis=1),
        node("Reshape", ["token", "corner"], ["grown"]),
        *(node("Add", [f"past_key_values.{layer}", "grown"], [f"present.{layer}"]) for layer in LAYERS),
    ]  # fmt: skip
    initializers = [numpy_helper.from_array(np.array(value, np.int32), name) for name, value in constants.items()]
    initializers += [
        numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in {"last": [1], "behind": [1, 2, 3], "corner": [-1, 1, 1, 1]}.items()
    ]
    graph = helper.make_graph(nodes, "step", [_info(item) for item in IO.inputs], [_info(item) for item in IO.outputs],
                              initializers)  # fmt: skip
    path = folder / "decoder_step.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    greatest = {"batch": 8, "encoder_tokens": 4096}
    profile = {
        item.name: {
            "min": [1 if isinstance(dim, str) else dim for dim in item.dims],
            "opt": [greatest.get(dim, dim) for dim in item.dims], "max": [greatest.get(dim, dim) for dim in item.dims],
        }
        for item in IO.inputs
    }  # fmt: skip
    engine = {"graph": str(path), "profiles": [profile]}
    for side, tensors in (("inputs", IO.inputs), ("outputs", IO.outputs)):
        engine[side] = [
            {"name": item.name, "dtype": item.dtype, "dims": [-1 if isinstance(dim, str) else dim for dim in item.dims]}
            for item in tensors
        ]
    (folder / "decoder_step.engine").write_bytes(json.dumps(engine).encode())
    return folder / "decoder_step.engine"


def _info(tensor: IOTensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, TYPES[tensor.dtype], list(tensor.dims))


def open_graph(engine: Path, library: str = "tensorrt", *, captures: bool = True) -> EngineGraph:
    """The engine on a device of its own, by what stands in for CUDA and the library now."""
    loaded = Library(library).engine(engine.read_bytes(), "engine of decoder_step", None)
    return EngineGraph(loaded, IO, CudaDevice(Cuda()), captures=captures)


def dims(batch: int, tokens: int) -> dict[str, tuple[int, ...]]:
    """Of every input."""
    sizes = {"batch": batch, "encoder_tokens": tokens}
    return {item.name: tuple(sizes.get(dim, dim) for dim in item.dims) for item in IO.inputs}


def given(batch: int, tokens: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """First positions (batch,), and what else a loop is given."""
    random = np.random.default_rng(seed)
    mask = random.integers(0, 2, (batch, tokens)).astype(np.int32)
    ids = random.integers(0, MODULUS, (batch, 1)).astype(np.int32)
    return random.integers(0, 3, batch).astype(np.int32), {"decoder_input_ids": ids, "encoder_attention_mask": mask}


def answer(graph: EngineGraph, batch: int, tokens: int, runs: int, seed: int, *, seen: bool = True) -> list[dict]:
    """What `runs` runs of a loop give, INTERVAL at a time."""
    counter, values = given(batch, tokens, seed)
    found = []
    with graph.loop(LOOP, dims(batch, tokens), runs) as loop:
        loop.start(counter, values, [name for name in LOOP.carried if name.startswith("past")])
        while len(found) < runs:
            given_out = loop.run(min(loop.interval, runs - len(found)), seen=seen)()
            found += [{name: value.copy() for name, value in outputs.items()} for outputs in given_out]
    return found


def expected(batch: int, tokens: int, runs: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """By run the tokens and the positions."""
    counter, values = given(batch, tokens, seed)
    token, masked, found = values["decoder_input_ids"][:, 0], values["encoder_attention_mask"].sum(1), []
    cached = np.zeros(batch, np.int64)
    for run in range(runs):
        token = (3 * token + counter + run + masked + 24 * cached) % MODULUS
        cached = cached + token
        found.append((token.tolist(), (counter + run).tolist()))
    return found
