"""Rules on operators: which there are in a version of TensorRT, and in what form it takes them."""

from __future__ import annotations

from collections.abc import Iterator

from glimmer_export.exporter.lint.graph import LintGraph, attribute, label, present
from glimmer_export.exporter.lint.rule import Fault, Limits, Rule
from glimmer_export.runtime.contract.manifest import MAX_PASSAGES

__all__ = ["OPERATOR_RULES"]

OPERATORS_MD = "ONNX-TensorRT, docs/operators.md"
STANDARD = ("", "ai.onnx")
MAX_OPSETS = (((10, 15), 24), ((10, 14), 23), ((10, 0), 20))
"""TensorRT's versions, newest first, and the last opset of each."""
SUPPORTED = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu
    Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace DequantizeLinear Div
    Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU HardSigmoid
    HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg
    NonMaxSuppression NonZero Not OneHot Or PRelu Pad ParametricSoftplus Pow QuantizeLinear RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RNN RoiAlign
    Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
    Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu
    Unsqueeze Upsample Where Xor
    """.split()
)
"""Operators of TensorRT 10.3."""
SINCE = {
    "BlackmanWindow": (10, 4), "HammingWindow": (10, 4), "HannWindow": (10, 4), "STFT": (10, 5),
    "Attention": (10, 14), "RMSNormalization": (10, 15), "RotaryEmbedding": (10, 15), "TensorScatter": (10, 15),
}  # fmt: skip
"""Those that came later."""


def _opset(graph: LintGraph, limits: Limits) -> Iterator[Fault]:
    last = next((opset for since, opset in MAX_OPSETS if limits.version >= since), 0)
    if not 9 <= graph.opset <= last:
        yield graph.name, f"opset {graph.opset}, where TensorRT {_text(limits.version)} ends at {last}"


def _domain(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in graph.nodes:
        if node.domain not in STANDARD:
            yield label(node), f"{node.domain}.{node.op_type}"
    for function in graph.model.functions:
        yield function.name, "a function of its own"


def _operator(graph: LintGraph, limits: Limits) -> Iterator[Fault]:
    for node in graph.nodes:
        kind = node.op_type
        if node.domain in STANDARD and kind not in SUPPORTED and limits.version < SINCE.get(kind, (99, 0)):
            later = f", which came with {_text(SINCE[kind])}" if kind in SINCE else ""
            yield label(node), f"{kind}{later}"


def _constant_axes(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in graph.nodes:
        takes = node.op_type.startswith("Reduce") or node.op_type in ("Squeeze", "Unsqueeze")
        if takes and len(node.input) > 1 and node.input[1] and node.input[1] not in graph.constants:
            yield label(node), f"axes {node.input[1]}, which are computed"


def _topk(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in graph.nodes:
        if node.op_type != "TopK":
            continue
        if node.input[1] not in graph.constants:
            yield label(node), f"K {node.input[1]}, which is computed"
        elif (most := int(graph.array(node.input[1]).reshape(-1)[0])) > MAX_PASSAGES:
            yield label(node), f"K {most}"


def _if_ranks(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in graph.nodes:
        branches = [found.g for name in ("then_branch", "else_branch") if (found := attribute(node, name)) is not None]
        if node.op_type != "If" or len(branches) != 2:
            continue
        for then, other in zip(branches[0].output, branches[1].output, strict=False):
            ranks = [graph.rank(value.name) for value in (then, other)]
            if ranks[0] != ranks[1] or then.name == other.name:
                yield label(node), f"{then.name} of rank {ranks[0]} and {other.name} of rank {ranks[1]}"


def _static_rank(graph: LintGraph, _: Limits) -> Iterator[Fault]:
    for node in graph.nodes:
        for name in present(node.output):
            if graph.rank(name) is None:
                yield label(node), f"{name}, whose number of dimensions is not known"


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


OPERATOR_RULES = (
    Rule(
        "opset", "expected an opset that the target's TensorRT reads", OPERATORS_MD,
        "export with opset 20, as `glimmer-export export` does", _opset,
    ),
    Rule(
        "domain", "expected standard ONNX operators", "TensorRT documentation, Extending TensorRT with Custom Layers",
        "write it with standard operators; `com.microsoft` ones come of ONNX Runtime's optimiser, so save the graph "
        "before it", _domain,
    ),
    Rule(
        "operator", "expected an operator of the target's TensorRT", OPERATORS_MD, "write it with operators it has",
        _operator,
    ),
    Rule("constant-axes", "expected axes known at build time", OPERATORS_MD, "make the axes an initializer",
         _constant_axes),
    Rule("topk", f"expected a constant K of at most {MAX_PASSAGES}", OPERATORS_MD, "rank fewer, as a constant", _topk),
    Rule(
        "if-rank", "expected both branches of If to give values of one rank under different names", OPERATORS_MD,
        "reshape one branch's output, or rename it", _if_ranks,
    ),
    Rule(
        "static-rank", "expected every value to have a known number of dimensions",
        "TensorRT documentation, Working with Dynamic Shapes", "give Reshape and Expand a shape of known length",
        _static_rank,
    ),
)
