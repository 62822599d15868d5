"""A weight -> codes of 4 or 8 bits in blocks of 32 along what it multiplies.

What MatMulNBits reads: unsigned codes, a scale and a zero point for each block of a column, `w = (code - zero) scale`.
Rounding and k-quant are those behind ONNX Runtime's `MatMulNBitsQuantizer`, called array by array, as it lays out
k-quant's zero points for an even number of blocks alone. Its GPTQ is not used: in 1.31 it takes the factor of the
inverse moments the wrong way round, makes no error up, and gives what rounding to nearest gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.contract import BLOCK_SIZE, CalibrationError

__all__ = ["BlockCodes", "Quantizer", "quantizer"]

COLUMNS = 4096
"""That are quantised at once, which bounds memory; each has its own codes whatever stands beside it."""
DAMPING = 0.01
"""Of the mean square of what a product reads, added to each of its channels' (GPTQ; ONNX Runtime's default)."""


@dataclass(frozen=True)
class BlockCodes:
    """A weight (K, N): `codes` (N, blocks, 32) and `zero_points` (N, blocks) uint8, `scales` (N, blocks) float32.

    Codes behind the K-th of a column are padding, and stand for zeros.
    """

    bits: int
    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8]

    def unpacked(self, rows: int) -> NDArray[np.float32]:
        """The weight (rows, N) that the codes stand for."""
        offsets = self.codes.astype(np.float32) - self.zero_points[..., None]
        return np.ascontiguousarray((offsets * self.scales[..., None]).reshape(len(self.codes), -1)[:, :rows].T)

    def packed(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """As the operator has them: codes (N, blocks, 32 * bits / 8), zero points (N, blocks * bits / 8, upwards)."""
        return _packed(self.codes, self.bits), _packed(self.zero_points, self.bits)


Quantizer = Callable[[NDArray[np.float32], int, "NDArray[np.float64] | None"], BlockCodes]
"""A weight (K, N), bits, and what GPTQ wants of the inputs, (K, K) or None -> its codes."""


def quantizer(algorithm: str) -> Quantizer:
    """The function of one of ALGORITHMS."""
    known: dict[str, Quantizer] = {"k-quant": k_quant, "gptq": gptq, "rtn": round_to_nearest}
    return known[algorithm]


def round_to_nearest(weight: NDArray[np.float32], bits: int, _: NDArray[np.float64] | None = None) -> BlockCodes:
    """Each weight to the nearest of 2**bits levels between its block's smallest and largest, zero among them."""
    from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_matmul_8bits

    rows, columns = weight.shape
    blocks = _num_blocks(rows)
    packed = np.zeros((columns, blocks, BLOCK_SIZE * bits // 8), np.uint8)
    zero_points = np.zeros((columns, -(-blocks * bits // 8)), np.uint8)
    scales = np.zeros((columns, blocks), np.float32)
    quantize = {4: quantize_matmul_4bits, 8: quantize_matmul_8bits}[bits]
    quantize(packed, np.ascontiguousarray(weight, np.float32), scales, zero_points, BLOCK_SIZE, columns, rows, False)
    found = BlockCodes(bits, _unpacked(packed, bits, BLOCK_SIZE), scales, _unpacked(zero_points, bits, blocks))
    padding = found.codes[:, -1, rows - (blocks - 1) * BLOCK_SIZE :]
    padding[...] = found.zero_points[:, -1:]  # so that it stands for nothing
    return found


def k_quant(weight: NDArray[np.float32], bits: int, _: NDArray[np.float64] | None = None) -> BlockCodes:
    """Scale and zero point of the least square error, large weights counting more (llama.cpp's k-quant).

    Where a block comes out no nearer than by rounding, it is rounded: the search takes no account of zero, and clips a
    block whose weights have one sign.
    """
    from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu

    rounded = round_to_nearest(weight, bits)
    for part in _parts(weight.shape[1]):
        rows = _blocks(weight[:, part])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # blocks of one value, or of next to none
            codes, scales, zero_points = quant_tensor_k_quant_cpu(rows.reshape(-1, BLOCK_SIZE), bits, BLOCK_SIZE)
        found = BlockCodes(
            bits, np.nan_to_num(codes).astype(np.uint8).reshape(rows.shape),
            scales.astype(np.float32).reshape(rows.shape[:2]), zero_points.reshape(rows.shape[:2]),
        )
        before = BlockCodes(bits, rounded.codes[part], rounded.scales[part], rounded.zero_points[part])
        nearer = _square_error(found, rows) < _square_error(before, rows)
        before.codes[nearer] = found.codes[nearer]
        before.scales[nearer] = found.scales[nearer]
        before.zero_points[nearer] = found.zero_points[nearer]
    return rounded


def gptq(weight: NDArray[np.float32], bits: int, moments: NDArray[np.float64] | None) -> BlockCodes:
    """Rounded row by row, what each row loses being made up by those after it (Frantar et al. 2022, arXiv 2210.17323).

    `moments` (K, K) are the mean products of the channels that the product reads, on real inputs. Scales and zero
    points are k-quant's, and rows are taken by how much they carry, the most first. Raises CalibrationError if there
    are no moments, or nothing but zeros was ever read.
    """
    if moments is None or not np.diag(moments).any():
        raise CalibrationError(
            "gptq", expected="what every product reads, on real questions", found="a product that never ran",
            fix="take more questions, or another algorithm",
        )
    codes = k_quant(weight, bits)
    order = np.argsort(-np.diag(moments), kind="stable")
    factor = _inverse_factor(moments[np.ix_(order, order)])
    for part in _parts(weight.shape[1]):
        _round_in_order(
            weight[order, part].astype(np.float32), order, factor,
            BlockCodes(bits, codes.codes[part], codes.scales[part], codes.zero_points[part]),
        )
    return codes


def _inverse_factor(moments: NDArray[np.float64]) -> NDArray[np.float32]:
    """The upper factor U of the inverse, U^T U, of the damped moments."""
    damped = moments + DAMPING * np.diag(moments).mean() * np.eye(len(moments))
    return np.ascontiguousarray(np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32))


def _round_in_order(
    rows: NDArray[np.float32], order: NDArray[np.intp], factor: NDArray[np.float32], codes: BlockCodes
) -> None:
    """Round `rows` (K, N), that stand in `order`, one after another, writing the codes; `rows` is used up."""
    count = len(rows)
    for start in range(0, count, BLOCK_SIZE):
        end = min(start + BLOCK_SIZE, count)
        errors = np.empty((end - start, rows.shape[1]), np.float32)
        for place in range(start, end):
            block, within = divmod(int(order[place]), BLOCK_SIZE)
            scale, zero = codes.scales[:, block], codes.zero_points[:, block].astype(np.float32)
            code = np.clip(np.rint(rows[place] / scale) + zero, 0, 2**codes.bits - 1)
            codes.codes[:, block, within] = code.astype(np.uint8)
            error = (rows[place] - (code - zero) * scale) / factor[place, place]
            rows[place + 1 : end] -= np.outer(factor[place, place + 1 : end], error)
            errors[place - start] = error
        rows[end:] -= factor[start:end, end:].T @ errors


def _square_error(codes: BlockCodes, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    offsets = codes.codes.astype(np.float32) - codes.zero_points[..., None]
    return np.asarray(np.square(offsets * codes.scales[..., None] - rows).sum(-1), np.float32)


def _blocks(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """(K, N) -> (N, blocks, 32), zeros behind the end."""
    rows, columns = weight.shape
    padded = np.zeros((columns, _num_blocks(rows) * BLOCK_SIZE), np.float32)
    padded[:, :rows] = weight.T
    return padded.reshape(columns, -1, BLOCK_SIZE)


def _num_blocks(rows: int) -> int:
    return -(-rows // BLOCK_SIZE)


def _parts(columns: int) -> Iterator[slice]:
    return (slice(start, start + COLUMNS) for start in range(0, columns, COLUMNS))


def _packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return np.ascontiguousarray(codes)
    even = np.zeros((*codes.shape[:-1], codes.shape[-1] + codes.shape[-1] % 2), np.uint8)
    even[..., : codes.shape[-1]] = codes
    return np.asarray(even[..., ::2] | even[..., 1::2] << 4, np.uint8)


def _unpacked(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    if bits == 8:
        return packed
    halves = np.stack([packed & 15, packed >> 4], axis=-1)
    return np.ascontiguousarray(halves.reshape(*packed.shape[:-1], -1)[..., :count])
