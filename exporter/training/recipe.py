"""A recipe of a training, as data: `configs/training/<name>.yaml`, or a YAML file of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from glimmer_export.exporter.config.read import config_label, read_config, validation_message
from glimmer_export.exporter.config.yaml_file import yaml_from_text
from glimmer_export.runtime.contract import OptionError
from glimmer_export.runtime.contract.manifest import MAX_DEPTH, MAX_LENGTH, MAX_PASSAGES

__all__ = ["Filter", "OptimizerSettings", "Phase", "Recipe", "World", "read_recipe"]

MAX_STEPS = 1 << 31
Count = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Passages = Annotated[int, Field(ge=1, le=MAX_PASSAGES)]
Tokens = Annotated[int, Field(ge=2, le=MAX_LENGTH)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class OptimizerSettings(_Fields):
    """How weights move.

    `adafactor` as T5X means it: steps relative to each parameter's root mean square, clipped at 1.0, second moments
    that decay by step**-0.8, no momentum (torch.optim.Adafactor, which holds the rate below step**-0.5 besides).
    `adamw` without weight decay is Adam. `sgd` has no momentum: a step is the gradient, by which two trainings can be
    compared.
    """

    name: Literal["adafactor", "adamw", "sgd"] = "adafactor"
    weight_decay: Rate = 0.0
    max_gradient_norm: float | None = Field(default=1.0, gt=0)


class World(_Fields):
    """Rows that a registered generator makes, anew after every `steps` steps, so that no fact is learned by heart.

    `options` are the generator's own.
    """

    generator: str
    steps: Count = 50
    options: dict[str, Any] = Field(default_factory=dict)


class Filter(_Fields):
    """Which rows are left out for want of a relevant passage.

    `provenance`: KILT's provenance has no page with a score of `threshold` or more (Hofstaetter et al. 2022).
    `gold_or_answer`: no gold passage, and none with an answer in it, is among those retrieved.
    """

    name: Literal["none", "provenance", "gold_or_answer"] = "none"
    threshold: Share = 0.5


class Phase(_Fields):
    """A stretch of a training: `steps` batches; what it leaves out is the recipe's own.

    Its rows are those of `tasks`, all tasks that are trained on by default, or a world's. The learning rate stays, or
    goes linearly from the previous phase's (0 before the first) to this one's. The phase ends early once the running
    exact match on the training batches reaches `promote_at`.
    """

    steps: Count
    batch_size: Count | None = None
    num_retrieved: Passages | None = None
    num_selected: Passages | None = None
    learning_rate: Rate | None = None
    ramp: Literal["constant", "linear"] | None = None
    world: World | None = None
    tasks: tuple[str, ...] | None = Field(default=None, strict=False, min_length=1)
    promote_at: Share | None = None


class Recipe(_Fields):
    """How a checkpoint is trained. A field that is None is the checkpoint's own, or follows from the others.

    `steps` are those in all; with `phases`, at most so many. `batch_size` is that of a step, on all processes together,
    `micro_batch_size` what one of them holds at once. The lengths, in tokens, and `num_shortlisted`, which gives a
    model a shortlist that has none, are written into the checkpoint too.
    `memory` frozen trains neither the memory encoder nor the
    embedding that it reads, as a store is bound to both. `score_head`: a model that does not rank gets that many layers
    of stage A and a score head while it is trained, which are dropped at the end: the ranking loss teaches its live
    layers to tell passages apart. `start` copying: the output projection starts as the embedding, and half of the
    encoders' heads find a token's like elsewhere, which spares random weights most of the steps before anything is
    learned; `copying_spans`: besides, one head of each stack goes on from the token said last, for answers of many.
    `gold` among: the gold passage is one of the k, whatever was retrieved; `distractors`: the first of the others, or
    random ones. `keep`: the state with the best exact match on the dev rows, or the last. If no dev rows are given and
    there is a world, they are `dev_questions` of its test split.
    """

    steps: Count | None = None
    batch_size: Count = 128
    micro_batch_size: Count | None = None
    num_retrieved: Passages | None = None
    num_shortlisted: Passages | None = None
    num_selected: Passages | None = None
    question_length: Tokens | None = None
    passage_length: Tokens | None = None
    learning_rate: Rate = 1e-4
    ramp: Literal["constant", "linear"] = "constant"
    optimizer: OptimizerSettings = OptimizerSettings()
    dropout: float = Field(default=0.1, ge=0, lt=1)
    ranking_weight: Rate = 1.0
    temperature: float = Field(default=1.0, gt=0)
    divergence: Literal["rank_to_lm", "lm_to_rank"] = "rank_to_lm"
    likelihood: Literal["sum", "mean"] = "sum"
    likelihood_rows: Count = 128
    memory: Literal["trained", "frozen"] = "trained"
    score_head: int | None = Field(default=None, ge=1, le=MAX_DEPTH)
    start: Literal["checkpoint", "copying", "copying_spans"] = "checkpoint"
    world: World | None = None
    gold: Literal["as_retrieved", "among"] = "as_retrieved"
    distractors: Literal["first", "random"] = "first"
    relevance: Filter = Filter()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    weights: Literal["float32", "float16", "bfloat16"] = "float32"
    evaluate_every: Count = 1000
    save_every: Count = 500
    keep: Literal["best", "last"] = "best"
    dev_questions: Count = 1000
    phases: tuple[Phase, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.steps is None and not self.phases:
            raise ValueError("steps is missing: the training would not end")
        return self

    def schedule(self) -> tuple[Phase, ...]:
        """The phases with nothing left open but k and m, cut off after `steps` steps in all."""
        phases = self.phases or (Phase(steps=self.steps or 0),)
        ends = accumulate(phase.steps for phase in phases)
        most = MAX_STEPS if self.steps is None else self.steps
        scheduled = []
        for phase, end in zip(phases, ends, strict=True):
            if (left := most - (end - phase.steps)) <= 0:
                break
            own = {name: value for name, value in phase if value is not None}
            common = ("batch_size", "num_retrieved", "num_selected", "learning_rate", "ramp", "world")
            filled = {name: getattr(self, name) for name in common} | own
            scheduled.append(Phase(**filled | {"steps": min(phase.steps, left)}))
        return tuple(scheduled)


def read_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """A recipe by its name, or by the path of a YAML file, with fields changed.

    Each change is FIELD=VALUE, the value in YAML; a field inside another is named by dots, a phase by its number from
    0: `optimizer.name=adamw`, `phases.1.steps=20`. Raises OptionError for a recipe that there is not, and for a field
    that there is not or that cannot have the value.
    """
    recipe = read_config("recipe", name, Recipe)
    if not changes:
        return recipe
    fields: Any = recipe.model_dump()
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path:
            raise OptionError(
                f"option --set {change!r}", expected="FIELD=VALUE", found="no value" if path else "no field",
                fix="write it as steps=1000 or optimizer.name=adamw",
            )
        value = yaml_from_text(
            text, error=OptionError, subject=f"option --set {path}", expected="a value", fix="write it as YAML has it"
        )
        _put(fields, path, value)
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise OptionError(
            f"recipe {config_label('recipe', name)} with {', '.join(changes)}", expected="a recipe's fields",
            found=validation_message(error), fix="correct the named fields",
        ) from None


def _put(fields: Any, path: str, value: Any) -> None:
    """Set the field at a dotted path; what does not exist is left to pydantic, which names it, or is refused."""
    *outer, last = path.split(".")
    inside = fields
    for name in outer:
        inside = _entry(inside, name, path)
    if isinstance(inside, (list, tuple)):
        raise _no_field(path, f"a whole phase at {last}")
    if not isinstance(inside, dict):
        raise _no_field(path, f"{inside!r}, which has no fields")
    inside[last] = value


def _entry(inside: Any, name: str, path: str) -> Any:
    if isinstance(inside, dict) and inside.get(name) is not None:
        return inside[name]
    if isinstance(inside, (list, tuple)) and name.isdecimal() and int(name) < len(inside):
        return inside[int(name)]
    raise _no_field(path, f"nothing at {name}")


def _no_field(path: str, found: str) -> OptionError:
    return OptionError(
        f"option --set {path}", expected="a field of the recipe", found=found,
        fix="name one that the recipe has, as configs/training has them",
    )
