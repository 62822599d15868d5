"""What to measure, checked before any work is done."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.bench.cross_encoder import CrossEncoderShape
from glimmer_export.exporter.bench.language_model import LanguageModelShape
from glimmer_export.exporter.bench.roster import OURS, parse_peers
from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.runtime.backends.threads import allowed_cpus
from glimmer_export.runtime.contract import OptionError

__all__ = [
    "BLOCK_SECONDS", "DEFAULT_PEERS", "BenchOptions", "PeerShapes", "bundle_peers", "check_lengths", "peer_names",
]  # fmt: skip

DEFAULT_PEERS = ("int8", "paper-form", "hf-fid-k5", "hf-fid-k25")
NO_PEERS = "none"

BLOCK_SECONDS = 3.0
"""As long as trtexec measures if it is not told: the caches and the clock are then the contender's own."""
OPTIONS = {"k": "--top-k", "m": "--top-m"}
"""Fields whose option has another name."""
BUNDLE_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}", re.ASCII)


@dataclass(frozen=True)
class PeerShapes:
    """Widths and depths of the peers that have not our weights; None for the models that they are named after."""

    cross_encoder: CrossEncoderShape | None = None
    language_model: LanguageModelShape | None = None


@dataclass(frozen=True)
class BenchOptions:
    """Options of a bench.

    One of `random` (a model size) and `checkpoint` (a directory) is given. `k` passages are ranked and `m` read;
    `question_tokens` and `passage_tokens` are lengths with EOS, `answer_tokens` is what every contender decodes,
    whether or not it meets EOS. `batch_size` questions are answered in one run. Each contender has `repeats` blocks of
    runs back to back, of which `warmup` at the head are not counted and the others take at least `block_seconds`;
    `seconds` bounds all blocks together, None for no bound. `bundles` are further contenders by name, made of the same
    checkpoint. `peak_rss` and `store`: whether to measure each one's peak memory, and what is done with a store:
    encoding passages, and reading them by codec. `work` keeps what is exported for another bench; None: a temporary
    directory.
    """

    random: str | None = None
    checkpoint: Path | None = None
    k: int = 25
    m: int = 5
    question_tokens: int = 48
    passage_tokens: int = 304
    answer_tokens: int = 8
    threads: int | None = None
    batch_size: int = 1
    repeats: int = 5
    warmup: int = 1
    block_seconds: float = BLOCK_SECONDS
    seconds: float | None = None
    peers: tuple[str, ...] = DEFAULT_PEERS
    bundles: tuple[tuple[str, Path], ...] = ()
    peak_rss: bool = True
    store: bool = True
    seed: int = 0
    work: Path | None = None
    shapes: PeerShapes = PeerShapes()

    def check(self) -> None:
        """Raise OptionError for options out of their range or that do not go together."""
        if (self.random is None) == (self.checkpoint is None):
            raise OptionError(
                "bench", expected="one of --random SIZE and --checkpoint DIR",
                found="neither" if self.random is None else "both", fix="say what to measure",
            )
        least = {
            "k": 1, "m": 1, "question_tokens": 2, "passage_tokens": 2, "answer_tokens": 1, "batch_size": 1,
            "repeats": 1, "warmup": 1, "block_seconds": 0,
        }  # fmt: skip
        for name, minimum in least.items():
            if (value := getattr(self, name)) < minimum:
                option = OPTIONS.get(name) or f"--{name.replace('_', '-')}"
                raise OptionError(option, expected=f"at least {minimum}", found=str(value), fix="raise it")
        if self.m > self.k:
            raise OptionError(
                "--top-m", expected=f"at most the {self.k} passages of --top-k", found=str(self.m),
                fix="lower --top-m or raise --top-k",
            )
        keys = [OURS, *(peer.key for peer in parse_peers(self.peers)), *(_key(name) for name, _ in self.bundles)]
        for key in keys:
            if keys.count(key) > 1:
                raise OptionError(
                    "--bundle", expected="a name that no other contender has", found=repr(key), fix="name it otherwise"
                )

    @property
    def num_threads(self) -> int:
        """CPU threads of every contender: those asked for, else one a CPU that this process may use."""
        return self.threads or len(allowed_cpus())

    @property
    def command(self) -> str:
        """The command that measures this again; where work is kept and what is printed is left out."""
        source = ["--random", self.random] if self.random else ["--checkpoint", str(self.checkpoint)]
        numbers = {
            "--top-k": self.k, "--top-m": self.m, "--question-tokens": self.question_tokens,
            "--passage-tokens": self.passage_tokens, "--answer-tokens": self.answer_tokens,
            "--threads": self.num_threads, "--batch-size": self.batch_size, "--repeats": self.repeats,
            "--warmup": self.warmup, "--block-seconds": f"{self.block_seconds:g}",
        }  # fmt: skip
        words = [word for option, value in numbers.items() for word in (option, str(value))]
        words += ["--seconds", f"{self.seconds:g}"] if self.seconds is not None else []
        if self.peers != DEFAULT_PEERS:
            words += ["--peers", ",".join(self.peers) or NO_PEERS]
        for name, bundle in self.bundles:
            words += ["--bundle", f"{name}={bundle}"]
        words += ["--seed", str(self.seed)] if self.seed else []
        return shlex.join(["glimmer-export", "bench", *source, *words])


def peer_names(text: str) -> tuple[str, ...]:
    """The names of `--peers` as written on a command line: with commas between them, or none."""
    return () if text.strip() == NO_PEERS else tuple(name.strip() for name in text.split(","))


def bundle_peers(texts: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    """What `--bundle` gives: NAME=DIR each; raises OptionError for another form."""
    found = []
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path or BUNDLE_NAME.fullmatch(name) is None:
            raise OptionError(
                "--bundle", expected="NAME=DIR, the name of lower-case letters, digits and hyphens", found=repr(text),
                fix="name the bundle, then say where it is",
            )
        found.append((name, Path(path)))
    return tuple(found)


def _key(name: str) -> str:
    return name.replace("-", "_")


def check_lengths(options: BenchOptions, config: CheckpointConfig, subject: str) -> None:
    """Raise OptionError if a checkpoint cannot be benched so: another architecture, or lengths beyond its own."""
    if not config.shape.traits.selects:
        raise OptionError(
            subject, expected="the architecture glimmer, whose forms a bench compares", found=config.architecture,
            fix="name a glimmer checkpoint",
        )
    limits = {
        "--question-tokens": (options.question_tokens, config.question_length),
        "--passage-tokens": (options.passage_tokens, config.passage_length),
        "--answer-tokens": (options.answer_tokens, config.max_new_tokens),
    }
    for option, (value, limit) in limits.items():
        if value > limit:
            raise OptionError(
                option, expected=f"at most {limit}, the length that {subject} was made for", found=str(value),
                fix="lower it, or bench --random weights",
            )
