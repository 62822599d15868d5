"""The switches of a bundle, a store and a session that change what an answer takes or is, and what each may be.

A point is one value for each switch. What does not apply (a stage A where nothing is ranked, a codec where there is no
memory) has the one value that it can have, and points that differ in nothing that is built or asked are one point.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.config.targets import Target
from glimmer_export.exporter.engines.cross_attention import reckoned_form
from glimmer_export.exporter.memory.full_text import FTS5, TANTIVY
from glimmer_export.runtime.arguments import MAX_PASSAGES, MAX_THREADS
from glimmer_export.runtime.backends.threads import available_cores
from glimmer_export.runtime.contract import CODECS, CROSS_ATTENTION_FORMS, OptionError, codec_layout
from glimmer_export.runtime.drafts import DRAFT_TOKENS, MAX_DRAFT_TOKENS

__all__ = ["FP32", "NUMBERS", "SWITCHES", "Point", "Space", "Value", "space_of"]

Value = str | int | float | None

SWITCHES = (
    "codec", "index", "stage_a", "cross_attention", "precision", "method", "weight_only", "k", "m", "mass",
    "draft_tokens", "threads", "batch",
)  # fmt: skip
"""In the order in which a report names them: store, graphs, precision, then how is asked."""
NUMBERS = {
    "k": (1, MAX_PASSAGES), "m": (1, MAX_PASSAGES), "draft_tokens": (0, MAX_DRAFT_TOKENS), "threads": (1, MAX_THREADS),
    "batch": (1, 1024),
}  # fmt: skip
"""Switches that are whole numbers, with what they may be."""
COUNTED = 20_000
"""Points up to which a space is counted, and may be tried to its end."""
FP32, FP16 = "fp32", "fp16"
NONE = "none"
TRAINED_CODEC = "int8"
CODEBOOKS = "faiss"
"""The package that fits a codec's codebooks."""


@dataclass(frozen=True)
class Point:
    """One value for each of SWITCHES, in their order."""

    values: tuple[Value, ...]

    def __getitem__(self, switch: str) -> Value:
        return self.values[SWITCHES.index(switch)]

    def number(self, switch: str) -> int:
        """A switch that is a whole number."""
        value = self[switch]
        assert isinstance(value, int)
        return value

    def having(self, switch: str, value: Value) -> Point:
        """The same but for one switch."""
        return Point(tuple(value if name == switch else own for name, own in zip(SWITCHES, self.values, strict=True)))

    @property
    def key(self) -> str:
        """A short name for it, of all its values."""
        return hashlib.sha256(json.dumps(self.values).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Value]:
        """By the switches' names."""
        return dict(zip(SWITCHES, self.values, strict=True))

    @classmethod
    def from_json(cls, values: Mapping[str, Value]) -> Point:
        """What `to_json` gave; raises KeyError."""
        return cls(tuple(values[name] for name in SWITCHES))

    def differs(self, other: Point) -> list[str]:
        """The switches in which two points differ."""
        return [name for name in SWITCHES if self[name] != other[name]]

    def words(self, other: Point | None = None) -> str:
        """Its values, or those alone that another has not."""
        names = SWITCHES if other is None else self.differs(other)
        said = ", ".join(f"{name} {self[name]}" for name in names if other is not None or self[name] is not None)
        return said or "the default"


@dataclass(frozen=True)
class Space:
    """What each switch may be, the default's value first of all that is tried; `notes` say what is not, and why."""

    values: Mapping[str, tuple[Value, ...]]
    default: Point
    notes: tuple[str, ...] = ()

    @property
    def free(self) -> list[str]:
        """The switches that have more than one value."""
        return [name for name in SWITCHES if len(self.values[name]) > 1]

    @property
    def size(self) -> int | None:
        """How many points there are; None of more than COUNTED."""
        bound = math.prod(len(found) for found in self.values.values())
        return sum(1 for _ in self.points()) if bound <= COUNTED else None

    def points(self) -> Iterator[Point]:
        """Every point once, the default's first."""
        seen = set()
        for values in product(*(self.values[name] for name in SWITCHES)):
            point = self.sound(Point(values))
            if point.values not in seen:
                seen.add(point.values)
                yield point

    def one_apart(self) -> list[Point]:
        """The default with one other value, each that there is, those of one switch after the other."""
        found = [
            self.sound(self.default.having(name, value)) for name in self.free for value in self.values[name]
        ]
        return [point for point in dict.fromkeys(found) if point != self.default]

    def sound(self, point: Point) -> Point:
        """The point that is built: no more is read than was retrieved, no calibrator where nothing is INT8."""
        m, method = point["m"], self.values["method"][0]
        if isinstance(m, int):
            point = point.having("m", min(m, point.number("k")))
        if point["precision"] in (FP32, FP16) and method != point["method"]:
            point = point.having("method", method)
        return point

    def with_values(self, switch: str, values: Sequence[Value]) -> Space:
        """The same with other values of a switch; the default's is kept among them."""
        own = self.default[switch]
        return replace(self, values={**self.values, switch: tuple(dict.fromkeys((own, *values)))})

    def without(self, switch: str, value: Value, why: str) -> Space:
        """The same without one value of a switch, which is not the default's."""
        left = tuple(item for item in self.values[switch] if item != value)
        return replace(self, values={**self.values, switch: left}, notes=(*self.notes, why))

    def narrowed(self, asked: Iterable[str]) -> Space:
        """Of texts such as `codec=int8,pq8x` and `k=5,10`; raises OptionError for what is no switch or no value of one.

        A switch that is named twice may be what either says. The default is tried in any case.
        """
        wanted: dict[str, list[Value]] = {}
        for text in asked:
            switch, equals, values = (part.strip() for part in text.partition("="))
            if switch not in SWITCHES or not equals or not values:
                raise OptionError(
                    "option --try", expected=f"SWITCH=VALUE,... of {', '.join(SWITCHES)}", found=repr(text)[:80],
                    fix="write it as in --try codec=int8,pq8x --try k=5,10",
                )
            wanted.setdefault(switch, []).extend(self._value(switch, value.strip()) for value in values.split(","))
        space = self
        for switch, found in wanted.items():
            space = space.with_values(switch, found)
        return space

    def _value(self, switch: str, text: str) -> Value:
        known = self.values[switch]
        if switch in NUMBERS and known != (None,) and text.isascii() and text.isdecimal() and len(text) < 6:
            low, high = NUMBERS[switch]
            if low <= int(text) <= high:
                return int(text)
        for value in known:
            if str(value).lower() == text.lower():
                return value
        if switch == "mass" and known != (None,):
            try:
                if 0 < (number := float(text)) <= 1:
                    return number
            except ValueError:
                pass
        names = ", ".join(str(value).lower() for value in known)
        raise OptionError(
            f"option --try {switch}", expected=f"one of {names}" + (", or a number" if switch in NUMBERS else ""),
            found=repr(text)[:80], fix="choose one that applies to this model and target",
        )


def space_of(
    config: CheckpointConfig, target: Target, answer_tokens: int, *, num_passages: int, indexed: bool, index: str
) -> Space:
    """What applies to a checkpoint on a target, the defaults of the other commands as the default.

    `num_passages` is the size of the corpus, `index` the engine that `memory build` chooses for it; not `indexed`:
    passages are given, and nothing is searched. Precisions beside the whole in INT8 and in float come with
    `prune.ladder`.
    """
    shape, gpu = config.shape, target.tensorrt is not None
    notes: list[str] = []
    traits = shape.traits
    k, m = shape.num_retrieved, shape.num_selected
    codecs = tuple(_codecs(shape.d_model, notes)) if traits.has_memory else (None,)
    form = reckoned_form(shape, answer_tokens, target)
    lazy = ("full",) if config.score_pooling == "mean" else ("lazy", "full")
    default_codec = (TRAINED_CODEC if TRAINED_CODEC in codecs else codecs[0]) if traits.has_memory else None
    engines = [index]
    if indexed and find_spec("tantivy") is not None:
        engines += [engine for engine in (FTS5, TANTIVY) if engine != index]
    values: dict[str, tuple[Value, ...]] = {
        "codec": _first(default_codec, codecs),
        "index": tuple(engines),
        "stage_a": lazy if traits.selects else (None,),
        "cross_attention": _first(form, CROSS_ATTENTION_FORMS),
        "precision": ("int8-fp16", FP16) if gpu else ("int8", FP32),
        "method": ("max", "percentile", "mse", "entropy"),
        "weight_only": (NONE,) if gpu else (NONE, "int8", "int4"),
        "k": _around(k, min(MAX_PASSAGES, num_passages)),
        "m": _around(m, min(2 * k, num_passages)) if traits.selects and m is not None else (None,),
        "mass": (None, 0.99, 0.9) if traits.selects else (None,),
        "draft_tokens": (0,) if gpu else (DRAFT_TOKENS, 0, 2 * DRAFT_TOKENS),
        "threads": (1,) if gpu else tuple(dict.fromkeys((1, available_cores()))),
        "batch": (1,),
    }
    if gpu:
        notes.append("threads, drafts and weights of few bits alone are a CPU's: not tried for this target")
    if not indexed:
        notes.append("passages are those found in the whole corpus: the index is not tried")
    notes.append(
        "batch is not tried unless --try names values: whoever asks waits for the whole batch, so that 1 is soonest"
    )
    default = Point(tuple(values[name][0] for name in SWITCHES))
    return Space(values, default, tuple(notes))


def _codecs(width: int, notes: list[str]) -> Iterator[str]:
    for codec in CODECS:
        try:
            arrays = codec_layout(codec, width).arrays
        except ValueError as reason:
            notes.append(f"codec {codec} is not tried: {reason}")
            continue
        if any("codebook" in tensor.name for tensor in arrays) and find_spec(CODEBOOKS) is None:
            notes.append(f"codec {codec} is not tried: its fit asks for the package {CODEBOOKS}")
            continue
        yield codec


def _first(own: Value, values: Sequence[Value]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys((own, *values)))


def _around(own: int, most: int) -> tuple[Value, ...]:
    """A model's own number first; then a quarter, half, one and a half times and twice as many."""
    found = (math.ceil(own * factor) for factor in (1, 0.25, 0.5, 1.5, 2))
    return tuple(dict.fromkeys(max(1, min(number, most)) for number in found))
