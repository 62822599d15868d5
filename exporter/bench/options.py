"""What to measure, checked before any work is done."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.runtime.backends.threads import allowed_cpus
from glimmer_export.runtime.contract import OptionError

__all__ = [
    "BLOCK_SECONDS", "DEFAULT_PEERS", "INT8", "PAPER_FORM", "BenchOptions", "Peer", "check_lengths", "parse_peers",
    "peer_names",
]  # fmt: skip

PAPER_FORM = "paper-form"
INT8 = "int8"
OUR_PEERS = (INT8, PAPER_FORM)
DEFAULT_PEERS = (INT8, PAPER_FORM, "hf-fid-k5", "hf-fid-k25")
NO_PEERS = "none"
FID_PEER = re.compile(r"(?P<library>hf|optimum)-fid-k(?P<passages>[1-9]\d{0,3})", re.ASCII)

BLOCK_SECONDS = 3.0
"""As long as trtexec measures if it is not told: the caches and the clock are then the contender's own."""
OPTIONS = {"k": "--top-k", "m": "--top-m"}
"""Fields whose option has another name."""


@dataclass(frozen=True)
class Peer:
    """One contender beside ours.

    `library` is `session` (our graphs in INT8, or GLIMMER in the paper's form), `hf` or `optimum` (FiD).
    `num_passages` is what a FiD reads; None if the bench's own k and m hold. `key` is the name in reports.
    """

    name: str
    library: str
    num_passages: int | None

    @property
    def key(self) -> str:
        """The name as a JSON key."""
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class BenchOptions:
    """Options of a bench.

    One of `random` (a model size) and `checkpoint` (a directory) is given. `k` passages are ranked and `m` read;
    `question_tokens` and `passage_tokens` are lengths with EOS, `answer_tokens` is what every contender decodes,
    whether or not it meets EOS. `batch_size` questions are answered in one run. Each contender has `repeats` blocks of
    runs back to back, of which `warmup` at the head are not counted and the others take at least `block_seconds`;
    `seconds` bounds all blocks together, None for no bound. `work` keeps what is exported for another bench; None: a
    temporary directory.
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
    peak_rss: bool = True
    seed: int = 0
    work: Path | None = None

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
        parse_peers(self.peers)

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
        words += ["--seed", str(self.seed)] if self.seed else []
        return shlex.join(["glimmer-export", "bench", *source, *words])


def parse_peers(names: tuple[str, ...]) -> tuple[Peer, ...]:
    """Peers by name, in order; raises OptionError for one that is unknown or named twice."""
    peers: list[Peer] = []
    for name in names:
        match = FID_PEER.fullmatch(name)
        if match is None and name not in OUR_PEERS:
            raise OptionError(
                "--peers", expected=f"{INT8}, {PAPER_FORM}, hf-fid-kN, optimum-fid-kN, with N passages, or {NO_PEERS}",
                found=repr(name), fix="choose among these, with commas between them",
            )
        if any(peer.name == name for peer in peers):
            raise OptionError("--peers", expected="each peer once", found=f"{name} twice", fix="name it once")
        peers.append(
            Peer(name, "session", None) if match is None else Peer(name, match["library"], int(match["passages"]))
        )
    return tuple(peers)


def peer_names(text: str) -> tuple[str, ...]:
    """The names of `--peers` as written on a command line: with commas between them, or none."""
    return () if text.strip() == NO_PEERS else tuple(name.strip() for name in text.split(","))


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
