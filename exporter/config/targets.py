"""The machines that may answer: `configs/targets/<name>.yaml` has their peak rates, and how to compile for them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from glimmer_export.exporter.config.read import read_config

__all__ = ["PRECISIONS", "PeakTops", "Profile", "Range", "Target", "TensorRTTarget", "read_target"]

PRECISIONS = ("fp32", "fp16", "int8")
MODEL: Literal["model"] = "model"
"""In a range: as many as the bundle's own model has."""

Size = Annotated[int, Field(gt=0)] | Literal["model"]
Positions = Annotated[int, Field(gt=0, le=64)]


def _ordered(sizes: tuple[Size, Size, Size]) -> tuple[Size, Size, Size]:
    numbers = [size for size in sizes if size != MODEL]
    if numbers != sorted(numbers):
        raise ValueError("a range is the least, the one to tune for, and the greatest, in this order")
    return sizes


# YAML has lists where a frozen model has tuples: only the tuple itself is not strict.
Range = Annotated[tuple[Size, Size, Size], Field(strict=False), AfterValidator(_ordered)]
Capability = Annotated[str, Field(pattern=r"^\d{1,2}\.\d$")]


class PeakTops(BaseModel):
    """Tera-operations a second of dense matrix products; a multiply-add is two operations, as vendors count."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fp32: float = Field(gt=0)
    fp16: float = Field(gt=0)
    int8: float = Field(gt=0)


class Profile(BaseModel):
    """One optimization profile: the least, the one to tune for, and the greatest of each size.

    `batch` are the questions of a run, `texts` those of an encoder's run, tuned for the length of `text`; `passages` is
    k and `selected` m; `question_tokens` and `passage_tokens` are lengths. `positions` are those of a decoder step: its
    token's, and one for each token of a draft behind it, which engines take only if they are asked for here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    batch: Range
    texts: Range
    text: Literal["question", "passage"]
    passages: Range = (1, MODEL, MODEL)
    selected: Range = (1, MODEL, MODEL)
    question_tokens: Range = (1, MODEL, MODEL)
    passage_tokens: Range = (1, MODEL, MODEL)
    positions: Annotated[tuple[Positions, Positions, Positions], Field(strict=False), AfterValidator(_ordered)] = (
        1, 1, 1,
    )


class TensorRTTarget(BaseModel):
    """How to compile for a GPU.

    `version` is the oldest TensorRT that must take its graphs. `rtx_capability` is the compute capability that
    TensorRT-RTX builds for ahead of time: the nearest, a stand-in, if it does not know the GPU's own. `memory_gb` is
    the GPU's whole memory in 10^9 bytes, `workspace_mib` what one run may take of it as scratch. `kernel_us` are
    the microseconds that a kernel of a captured graph takes beside what it computes and moves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: str = Field(pattern=r"^\d+\.\d+$")
    compute_capability: Capability
    rtx_capability: Capability
    memory_gb: float = Field(gt=0)
    workspace_mib: int = Field(gt=0)
    kernel_us: float = Field(gt=0)
    profiles: Annotated[tuple[Profile, ...], Field(min_length=1, strict=False)]

    @property
    def stand_in(self) -> bool:
        """Whether engines that TensorRT-RTX builds ahead of time are for another capability than the GPU's."""
        return self.rtx_capability != self.compute_capability


class Target(BaseModel):
    """A machine's ceilings, and the vendor's document that states them; `tensorrt` is None if there is no GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    description: str = Field(min_length=1)
    source: str = Field(min_length=1)
    peak_tops: PeakTops
    memory_bandwidth_gb_per_s: float = Field(gt=0)
    absorbed_efficiency: float = Field(default=1.0, gt=0, le=1)
    """If there is no GPU: rate of absorbed cross-attention's products, as a share of that of the large products that
    it saves."""
    tensorrt: TensorRTTarget | None = None


def read_target(name: str) -> Target:
    """A machine by name, such as "t4", or by a YAML file; raises as `read_config`."""
    return read_config("target", name, Target)
