"""The training loop: the curriculum's phases, each fed with freshly generated worlds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from glimmer_export.exporter.checkpoint import CheckpointConfig, random_weights
from glimmer_export.exporter.demo.batches import Batch, encode_world
from glimmer_export.exporter.demo.loss import training_loss
from glimmer_export.exporter.demo.recipe import Phase
from glimmer_export.exporter.demo.tokenizer import build_tokenizer
from glimmer_export.exporter.demo.world import generate_split
from glimmer_export.exporter.stages import GlimmerModel

__all__ = ["Report", "Training", "initial_model"]

STEPS_PER_WORLD = 50
SMOOTHING = 0.04
WEIGHT_DECAY = 0.01
GRADIENT_NORM = 1.0
NOT_ITSELF = -6.0
PROGRESS = ("phase", "step", "world", "work", "seconds", "loss", "exact_match")


@dataclass(frozen=True)
class Report:
    """How the training stands: running loss and exact match, and the seconds that are left at most."""

    phase: int
    num_phases: int
    step: int
    loss: float
    exact_match: float
    fraction_done: float
    seconds_left: float


def initial_model(config: CheckpointConfig, seed: int) -> GlimmerModel:
    """T5's initial weights, but for two places where they start nearer to what has to be learned.

    Answers are copied out of passages: the output projection starts as the (scaled) embedding. Passages are found by
    the words they share with the question: in half of the encoders' heads, keys start as (scaled) queries and distance
    zero is discouraged, so that a word attends to its like elsewhere. Both spare most of the steps that go by before
    anything is learned.
    """
    weights = random_weights(config, seed=seed)
    weights["lm_head.weight"] = weights["shared.weight"] * config.d_model**-0.5
    like = config.inner_dim // 2
    for name, query in weights.items():
        if name.endswith("SelfAttention.q.weight") and "encoder" in name:
            weights[name.replace(".q.", ".k.")][:like] = query[:like] * config.d_kv**0.5
        if name.endswith("relative_attention_bias.weight") and "encoder" in name:
            query[0, : config.num_heads // 2] = NOT_ITSELF
    model = GlimmerModel(config)
    model.load_state_dict(weights)
    return model


class Training:
    """A run through the curriculum, a world at a time; `state` and `restore` carry it over an interruption."""

    def __init__(
        self, config: CheckpointConfig, curriculum: Sequence[Phase], *, seed: int, device: torch.device
    ) -> None:
        self.config = config
        self.curriculum = curriculum
        self.seed = seed
        self.device = device
        self.tokenizer = build_tokenizer()
        self.model = initial_model(config, seed).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
        self.phase, self.step, self.world = 0, 0, 0
        self.work = self.seconds = 0.0
        self.loss = self.exact_match = 0.0

    def run(self, report: Callable[[Report], None], world_done: Callable[[], None]) -> None:
        """Train to the end. Calls `report` after each step and `world_done` where the state may be saved."""
        while self.phase < len(self.curriculum):
            started = time.perf_counter()
            for batch in self._world_batches():
                self._train_step(batch)
                now = time.perf_counter()
                self.seconds, started = self.seconds + now - started, now
                report(self._report())
            self.world += 1
            phase = self.curriculum[self.phase]
            if self.step >= phase.steps or self.exact_match >= phase.promote_at:
                self.phase, self.step, self.exact_match = self.phase + 1, 0, 0.0
            world_done()

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result, as plain data: only a training of the same may continue from a state."""
        return {
            "seed": self.seed,
            "config": self.config.model_dump(),
            "curriculum": [asdict(phase) for phase in self.curriculum],
        }

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": {name: getattr(self, name) for name in PROGRESS},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; raises ValueError, and changes nothing, if it is of another form."""
        self._check(state)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["progress"].items():
            setattr(self, name, value)

    def _check(self, state: dict[str, Any]) -> None:
        """Raise ValueError for what torch would take in and fail on later: an optimizer's moments go in unseen."""
        mine = self.state()
        for name in ("model", "progress"):
            if _form(state.get(name)) != _form(mine[name]):
                raise ValueError(f"other names, shapes or types in its {name}")
        found = state.get("optimizer")
        groups, moments = (found.get(name) for name in ("param_groups", "state")) if isinstance(found, dict) else (0, 0)
        moment = {
            index: {"step": (), "exp_avg": tuple(weight.shape), "exp_avg_sq": tuple(weight.shape)}
            for index, weight in enumerate(self.model.parameters())
        }
        if (
            _form(groups) != _form(mine["optimizer"]["param_groups"])
            or not isinstance(moments, dict)
            or any(_form(each) != moment.get(index) for index, each in moments.items())
        ):
            raise ValueError("other names, shapes or types in its optimizer")

    def _world_batches(self) -> Iterator[Batch]:
        phase = self.curriculum[self.phase]
        steps = min(STEPS_PER_WORLD, phase.steps - self.step)
        # Each world says other things of the same training entities, so that no fact can be learned by heart.
        world_seed = self.seed * 1_000_003 + self.world
        world = generate_split("train", steps * phase.batch_size, world_seed, phase.facts_per_passage)
        generator = torch.Generator().manual_seed(world_seed)
        encoded = encode_world(world, self.tokenizer)
        for batch in encoded.shuffled_batches(phase.batch_size, phase.num_passages, generator):
            yield batch.to(self.device)

    def _train_step(self, batch: Batch) -> None:
        phase = self.curriculum[self.phase]
        previous = self.curriculum[self.phase - 1].learning_rate if self.phase else 0.0
        rate = previous + (phase.learning_rate - previous) * (self.step + 1) / phase.steps
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=_has_bfloat16(self.device)):
            losses = training_loss(self.model, batch, phase.num_selected)
        self.optimizer.zero_grad()
        losses.total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        self.step += 1
        self.work += phase.work
        weight = max(SMOOTHING, 1 / self.step)
        self.loss += weight * (losses.total.item() - self.loss)
        self.exact_match += weight * (losses.exact.float().mean().item() - self.exact_match)

    def _report(self) -> Report:
        phase = self.curriculum[self.phase]
        left = phase.work * (phase.steps - self.step)
        left += sum(later.work * later.steps for later in self.curriculum[self.phase + 1 :])
        total = sum(each.work * each.steps for each in self.curriculum)
        return Report(
            phase=self.phase,
            num_phases=len(self.curriculum),
            step=self.step,
            loss=self.loss,
            exact_match=self.exact_match,
            fraction_done=1 - left / total,
            seconds_left=self.seconds / self.work * left,
        )


def _form(value: object) -> Any:
    """What is left of nested data without its values: keys, lengths, shapes and types."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {key: _form(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_form(each) for each in value]
    return type(value)


def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" or bool(torch.cpu.get_capabilities().get("avx512_bf16"))
