"""Peak rates of the machines that may answer: `configs/targets/<name>.yaml`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporter.checkpoint.config import validation_message
from exporter.configs_path import configs_directory
from runtime.contract import OptionError

__all__ = ["PRECISIONS", "PeakTops", "Target", "read_target", "target_names"]

PRECISIONS = ("fp32", "fp16", "int8")


class PeakTops(BaseModel):
    """Tera-operations a second of dense matrix products; a multiply-add is two operations, as vendors count."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fp32: float = Field(gt=0)
    fp16: float = Field(gt=0)
    int8: float = Field(gt=0)


class Target(BaseModel):
    """A machine's ceilings, and the vendor's document that states them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    description: str = Field(min_length=1)
    source: str = Field(min_length=1)
    peak_tops: PeakTops
    memory_bandwidth_gb_per_s: float = Field(gt=0)
    absorbed_efficiency: float = Field(gt=0, le=1)
    """Rate of absorbed cross-attention's products, as a share of that of the large products which it saves."""


def target_names() -> tuple[str, ...]:
    """The known machines."""
    return tuple(sorted(path.stem for path in (configs_directory() / "targets").glob("*.yaml")))


def read_target(name: str) -> Target:
    """A machine by name, such as "t4"; raises OptionError for an unknown one and for a damaged file."""
    import yaml

    if name not in target_names():
        raise OptionError(
            f"target {name!r}", expected=f"one of {', '.join(target_names())}", found="none of that name",
            fix="choose one of these",
        )
    path = configs_directory() / "targets" / f"{name}.yaml"
    try:
        return Target.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(str(path), expected="a YAML mapping", found=str(error), fix="restore the file") from None
    except ValidationError as error:
        raise OptionError(
            str(path), expected="a target's rates with their source", found=validation_message(error),
            fix="correct the named fields",
        ) from None
