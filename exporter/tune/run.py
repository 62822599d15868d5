"""From goals to a bundle and a store: reckon, cut the questions, search, choose, and judge by what was held out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

from glimmer_export.calibration.questions import Question, read_questions
from glimmer_export.calibration.spread import spread
from glimmer_export.exporter.answering.metrics import gold_answers
from glimmer_export.exporter.bench.load import LoadWatch
from glimmer_export.exporter.checkpoint import Checkpoint, read_checkpoint
from glimmer_export.exporter.checkpoint.digest import checkpoint_digest
from glimmer_export.exporter.config.read import config_file, config_label
from glimmer_export.exporter.config.targets import Target, read_target
from glimmer_export.exporter.files.links import check_apart, link_or_copy, resolved
from glimmer_export.exporter.files.publish import check_place, publish_directory
from glimmer_export.exporter.files.whole_file import replace_file, write_errors
from glimmer_export.exporter.memory import CorpusSource
from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.full_text import AUTO, choose_engine, require_engine
from glimmer_export.exporter.parity.gate import read_gate
from glimmer_export.exporter.parity.options import no_progress
from glimmer_export.exporter.parity.record import questions_digest
from glimmer_export.exporter.report.origin import package_versions
from glimmer_export.exporter.report.visible import finite
from glimmer_export.exporter.tune.choose import choose
from glimmer_export.exporter.tune.corpus_sample import sample_corpus
from glimmer_export.exporter.tune.front import front_of
from glimmer_export.exporter.tune.goals import Goals
from glimmer_export.exporter.tune.journal import Journal, open_journal
from glimmer_export.exporter.tune.lines import BUILT_CODEC, Inputs
from glimmer_export.exporter.tune.measure import Lengths
from glimmer_export.exporter.tune.prune import ladder_of, measured_losses, pruned_codecs, pruned_methods
from glimmer_export.exporter.tune.reckon import Unreachable, unreachable
from glimmer_export.exporter.tune.report import TuneReport
from glimmer_export.exporter.tune.search import Bounds, Search
from glimmer_export.exporter.tune.space import Space, space_of
from glimmer_export.exporter.tune.split import HELD_OUT, Split, rows_of, split_questions
from glimmer_export.exporter.tune.trials import Trials
from glimmer_export.exporter.tune.verdict import held_of, standings
from glimmer_export.exporter.tune.workshop import Workshop, store_bytes
from glimmer_export.runtime.backends.threads import available_cores
from glimmer_export.runtime.contract import CODECS, QuestionError, TokenizerError, is_there
from glimmer_export.runtime.text import TextEncoder, read_tokenizer

__all__ = ["TuneRequest", "tune"]

REPORT = "report.json"
LIBRARIES = ("glimmer-export", "numpy", "onnx", "onnxruntime", "optuna", "torch")
LENGTHS_FROM = 200
"""Passages and questions whose tokens are counted."""
PART_SIZE = 4096


@dataclass(frozen=True)
class TuneRequest:
    """What is asked for. `gate` and `policy` are names or YAML files, `tried` the texts of `--try`.

    `held_out` is the share of the questions that the search does not see; `samples` are those of calibration and
    `sensitivity_samples` those of sensitivity, 0 for none; `sample_passages` the passages from which on a corpus is
    sampled; `timed` the questions of a block.
    """

    checkpoint: Path
    corpus: tuple[Path, ...]
    questions: tuple[Path, ...]
    output: Path
    target: str = "cpu"
    goals: Goals = field(default_factory=Goals)
    corpus_format: str | None = None
    chunk_words: int | None = None
    trials: int = 40
    minutes: float | None = None
    seed: int = 0
    held_out: float = HELD_OUT
    gate: str = "default"
    policy: str = "int8"
    tried: tuple[str, ...] = ()
    samples: int = 200
    sensitivity_samples: int = 48
    sample_passages: int = 20_000
    timed: int = 16
    restart: bool = False

    @property
    def inputs(self) -> list[Path]:
        """All that is read."""
        configs = config_file("target", self.target), config_file("gate", self.gate), config_file("policy", self.policy)
        return [self.checkpoint, *self.corpus, *self.questions, *configs]


Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def tune(
    request: TuneRequest, questions: list[Question], progress: Progress = no_progress
) -> TuneReport | list[Unreachable]:
    """Search, and write bundle, store and report; or, where goals cannot be met at all, which and by how much.

    Nothing is written where a goal cannot be reached. Raises what the commands raise that a point is made with, and
    OutputError for a folder that has something else or another search.
    """
    target = read_target(request.target)
    read_gate(request.gate)
    folder = resolved(request.output)
    check_apart(request.output, request.inputs)
    with write_errors(folder):
        check_place(folder)
    checkpoint = read_checkpoint(request.checkpoint)
    split = split_questions(questions, request.held_out, request.seed)
    source = CorpusSource.of(request.corpus, request.corpus_format, request.chunk_words)
    corpus = Corpus.scan(source, part_size=PART_SIZE)
    sampled = corpus.num_passages > request.sample_passages
    lengths = _lengths(checkpoint, corpus, split)
    index = choose_engine(AUTO, corpus.num_passages)
    require_engine(index)
    space = space_of(
        checkpoint.config, target, lengths.answer, num_passages=corpus.num_passages, indexed=not sampled, index=index
    )
    wide = space.narrowed(request.tried)
    found = unreachable(request.goals, checkpoint.config.shape, wide, target, lengths, corpus.num_passages)
    if found:
        return found
    plan = _plan(request, checkpoint, corpus, split)
    with open_journal(folder, plan, restart=request.restart) as journal, write_errors(folder):
        if request.restart:
            shutil.rmtree(folder / "parts", ignore_errors=True)
        (folder / "parts").mkdir(exist_ok=True)
        prepared = _Prepared(request, target, checkpoint, source, corpus, split, lengths, space, journal, folder)
        return prepared.report(progress)


def _lengths(checkpoint: Checkpoint, corpus: Corpus, split: Split) -> Lengths:
    """Mean tokens, of passages and questions in even steps, none longer than the model takes."""
    if checkpoint.tokenizer is None:
        raise TokenizerError(
            str(checkpoint), expected="a tokenizer, to answer questions with", found="none",
            fix="put its tokenizer.json beside the weights",
        )
    shape = checkpoint.config.shape
    text = TextEncoder.open(checkpoint.tokenizer, shape)
    questions = split.search[:LENGTHS_FROM]
    asked = [len(text.question(question.question)) for question in questions if _fits(text, question)]
    plain = read_tokenizer(checkpoint.tokenizer, shape.vocab_size, subject=str(checkpoint), fix="copy it again")
    golds = [gold for question in questions if _is_text(gold := min(gold_answers(question.answers)))]
    answers = [1 + len(plain.encode(gold).ids) for gold in golds]
    places = set(spread(range(corpus.num_passages), LENGTHS_FROM))
    passages = [
        len(text.passage(passage.title, passage.text)[0])
        for place, passage in enumerate(corpus.passages()) if place in places
    ]
    return Lengths(
        round(fmean(asked or [shape.question_length])), round(fmean(passages)),
        min(round(fmean(answers or [shape.max_new_tokens])), shape.max_new_tokens),
    )  # fmt: skip


def _plan(request: TuneRequest, checkpoint: Checkpoint, corpus: Corpus, split: Split) -> dict[str, Any]:
    """What decides which points are proposed and what they give, apart from time."""
    def content(kind: Any, name: str) -> str:
        return sha256(config_file(kind, name).read_bytes()).hexdigest()

    goals = request.goals
    return {
        "checkpoint": checkpoint_digest(checkpoint), "corpus": corpus.sha256, "chunk_words": request.chunk_words,
        "search questions": questions_digest(split.search), "held-out questions": questions_digest(split.held_out),
        "target": f"{config_label('target', request.target)} {content('target', request.target)}",
        "latency_ms": goals.latency_ms, "store_gb": goals.store_gb, "em_loss": goals.em_loss,
        "gate": f"{config_label('gate', request.gate)} {content('gate', request.gate)}",
        "policy": f"{config_label('policy', request.policy)} {content('policy', request.policy)}",
        "try": list(request.tried), "seed": request.seed, "samples": request.samples,
        "sensitivity samples": request.sensitivity_samples, "sample passages": request.sample_passages,
        "timed questions": request.timed, "cores": available_cores(), "versions": package_versions(LIBRARIES),
    }  # fmt: skip


@dataclass
class _Prepared:
    """A search whose journal is open."""

    request: TuneRequest
    target: Target
    checkpoint: Checkpoint
    source: CorpusSource
    corpus: Corpus
    split: Split
    lengths: Lengths
    space: Space
    journal: Journal
    folder: Path

    def report(self, progress: Progress) -> TuneReport:
        request, trials = self.request, Trials()
        self.journal.replay(trials.apply)
        share, retrieve_ms, source, split = self._asked_of(progress)
        parts = self.folder / "parts"
        workshop = Workshop(parts, self._inputs(source), source, split.search, share)
        space = self._pruned(workshop, progress)
        search = Search(
            workshop, space, request.goals, split.search, self.target, self.lengths, self.corpus.num_passages,
            retrieve_ms, self.journal, trials, LoadWatch(), request.seed,
        )
        bounds = Bounds(request.trials, None if request.minutes is None else 60 * request.minutes)
        with progress("Tuning", request.trials) as advance:
            ended = search.run(bounds, advance)
        tried, chosen = choose(search, split.held_out, request.gate, progress)
        found = TuneReport(
            request=request, goals=request.goals, inputs=workshop.inputs, space=space, trials=trials,
            front=front_of(trials.complete()),
            held_out=tried, chosen=chosen, ended=ended, reckoned=workshop.inputs.on_gpu,
            questions=(len(split.search), len(split.held_out), self.split.ungraded),
            passages=self.corpus.num_passages, sampled=self._sampled, retrieve_ms=retrieve_ms,
            seconds=self.journal.seconds,
            load=search.watch.load(None, cpus=available_cores(), threads=available_cores()),
            standings=() if chosen is None else tuple(
                standings(
                    request.goals, trials.all[chosen], trials, held_of(tried, chosen).less_reference,
                    reckoned=workshop.inputs.on_gpu,
                )
            ),
        )
        self._publish(workshop, found)
        return found

    @property
    def _sampled(self) -> bool:
        """Whether the corpus is too large to be encoded whole for a search."""
        return self.corpus.num_passages > self.request.sample_passages

    def _asked_of(self, progress: Progress) -> tuple[float, float, CorpusSource, Split]:
        """What bytes of the store are multiplied by, the time of a search, what is built of, and what is asked."""
        search, held_out, path = (self.folder / name for name in ("search.jsonl", "held-out.jsonl", "corpus.jsonl"))
        count, limit = self.corpus.num_passages, self.request.sample_passages
        if not self._sampled:
            _write(search, rows_of(self.split.search))
            _write(held_out, rows_of(self.split.held_out))
            return 1.0, 0.0, self.source, Split(_read(search), _read(held_out))
        event = self.journal.first("sample")
        if event is None or not all(item.is_file() for item in (search, held_out, path)):
            most = max(value for value in self.space.narrowed(self.request.tried).values["k"] if isinstance(value, int))
            parts = (self.split.search, self.split.held_out)
            with progress("Sampling the corpus", sum(map(len, parts))) as advance:
                sample = sample_corpus(self.source, path, parts, most, limit, advance)
            for place, (item, part) in enumerate(((search, parts[0]), (held_out, parts[1]))):
                _write(item, rows_of(part, sample.found[place]))
            event = self.journal.append(
                {"event": "sample", "passages": sample.passages, "retrieve_ms": sample.retrieve_ms}
            )
        share = count / int(event["passages"])
        return share, float(event["retrieve_ms"]), CorpusSource.of(path), Split(_read(search), _read(held_out))

    def _inputs(self, source: CorpusSource) -> Inputs:
        request, gpu = self.request, self.target.tensorrt is not None
        options: list[str] = []
        for path in source.paths:
            options += ["--corpus", str(_whole(path))]
        if source.format is not None:
            options += ["--corpus-format", source.format]
        if source.chunk_words is not None:
            options += ["--chunk-words", str(source.chunk_words)]
        tried = self.space.narrowed(request.tried).values["codec"]
        codecs = [BUILT_CODEC, *(str(codec) for codec in tried if codec is not None)]
        has_memory = self.checkpoint.config.shape.traits.has_memory
        return Inputs(
            checkpoint=_whole(request.checkpoint), corpus=tuple(options),
            questions=_whole(self.folder / "search.jsonl"), held_out=_whole(self.folder / "held-out.jsonl"),
            codecs=tuple(codec for codec in CODECS if codec in codecs) if has_memory else (),
            samples=request.samples, given=self._sampled, quantize_for="tensorrt" if gpu else "cpu",
            target=_named(request.target), policy=_named(request.policy), timed=request.timed,
            ladder=ladder_of(None, on_gpu=gpu),
        )

    def _pruned(self, workshop: Workshop, progress: Progress) -> Space:
        """The space with the precisions that `sensitivity` orders, without the codecs that another is better than."""
        request, space = self.request, self.space
        event = self.journal.first("space")
        if event is None:
            default = space.default
            with progress("Preparing", 3) as advance:
                workshop.float_bundle(default)
                advance(1)
                ladder = workshop.inputs.ladder
                if request.sensitivity_samples:
                    report = measured_losses(
                        workshop.calibrated(default), workshop.store(default), workshop.calibration,
                        request.sensitivity_samples, target=workshop.inputs.quantize_for, policy=request.policy,
                        given=workshop.inputs.given,
                    )
                    ladder = ladder_of(report, on_gpu=workshop.inputs.on_gpu)
                advance(1)
                wanted = space.with_values("precision", [*ladder]).narrowed(request.tried)
                kept = {}
                for codec in wanted.values["codec"]:
                    if codec is not None:
                        point = default.having("codec", codec)
                        if (snr := workshop.snr(point)) is not None:
                            kept[str(codec)] = (snr, store_bytes(workshop.store(point), workshop.corpus_share))
                workshop.inputs = replace(workshop.inputs, ladder=ladder)
                methods = {
                    str(method): workshop.graph_digests(default.having("method", method))
                    for method in wanted.values["method"]
                }
                space = pruned_methods(pruned_codecs(wanted, kept), methods)
                advance(1)
            event = self.journal.append({
                "event": "space", "values": space.values, "notes": space.notes, "ladder": ladder,
                "codecs": {name: {"snr_db": snr.usual_db, "bytes": size} for name, (snr, size) in kept.items()},
            })  # fmt: skip
        workshop.inputs = replace(
            workshop.inputs, ladder={name: tuple(words) for name, words in event["ladder"].items()}
        )
        values = {name: tuple(found) for name, found in event["values"].items()}
        return Space(values, space.default, tuple(event["notes"]))

    def _publish(self, workshop: Workshop, report: TuneReport) -> None:
        """The chosen bundle and store below the folder, and the report; a sample's store is no store to answer from."""
        for name in ("bundle", "store"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        if report.chosen is not None:
            built = workshop.built(report.trials.all[report.chosen].point)
            for name, source in (("bundle", built.bundle), ("store", built.store)):
                if name == "bundle" or not report.sampled:
                    with publish_directory(self.folder / name) as work:
                        shutil.copytree(source, work, copy_function=link_or_copy, dirs_exist_ok=True)
        replace_file(self.folder / REPORT, (json.dumps(finite(report.to_json()), allow_nan=False) + "\n").encode())


def _whole(path: Path) -> Path:
    """From the root on, so that a printed line can be run anywhere."""
    return resolved(path).absolute()


def _named(name: str) -> str:
    """A configuration's own name, or the whole path of a file."""
    return str(_whole(Path(name))) if is_there(Path(name)) else name


def _fits(text: TextEncoder, question: Question) -> bool:
    try:
        text.question(question.question)
    except QuestionError:
        return False
    return True


def _is_text(gold: str) -> bool:
    """Whether UTF-8 can write it, and so the tokenizer take it."""
    try:
        gold.encode()
    except UnicodeEncodeError:
        return False
    return True


def _write(path: Path, rows: str) -> None:
    replace_file(path, rows.encode())


def _read(path: Path) -> tuple[Question, ...]:
    return tuple(read_questions(path))
