"""All contenders of docs/measurements/speed.md, in groups that each fit into memory, ours in FP32 in every one.

`python -m glimmer_export.exporter.bench.speed --work DIR --prepare` exports what they need, and without `--prepare`,
and with `-o SPEED.json`, measures group after group, each in a process of its own. What is measured on a quiet machine
stays when the command is given again, and the others are measured anew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glimmer_export.exporter.bench.options import BenchOptions, bundle_peers
from glimmer_export.exporter.bench.run import prepare_bench, run_bench
from glimmer_export.exporter.files.publish import check_file, replace_file
from glimmer_export.runtime.contract import GlimmerError, OptionError, OutputError
from glimmer_export.runtime.contract.records import read_json

__all__ = ["GROUPS", "Group", "Run", "main", "measure_groups", "options_of", "read_run"]

EXIT_ERROR = 2

Run = Mapping[str, Mapping[str, Any]]
"""The groups of one run, by name: each the JSON of a bench."""


@dataclass(frozen=True)
class Group:
    """Contenders that take turns with each other: `peers` beside ours of a model `size`.

    `with_bundles`: also the bundles named on the command line; `whole`: with peak memory and the store's own times.
    """

    name: str
    peers: tuple[str, ...]
    size: str = "base"
    with_bundles: bool = False
    whole: bool = False


GROUPS = (
    Group(
        "default", ("int8", "paper-form", "hf-fid-k5", "hf-fid-k25", "optimum-fid-k5", "optimum-fid-k25"), whole=True
    ),
    Group("int8", ("int8", "paper-form-int8", "optimum-fid-k5-int8", "optimum-fid-k25-int8")),
    Group(
        "openvino",
        ("openvino", "openvino-bf16", "openvino-int8", "paper-form-openvino-bf16", "optimum-fid-k5-openvino-bf16",
         "optimum-fid-k25-openvino-bf16"),
    ),
    Group(
        "best",
        ("int8", "openvino-bf16", "openvino-int8", "auto-int8", "hf-fid-k5-bf16", "hf-fid-k25-bf16",
         "optimum-fid-k5-int8", "optimum-fid-k5-openvino-bf16", "llm-k5", "llm-kv-k5"),
        with_bundles=True,
    ),
    Group(
        "ranking",
        ("int8", "openvino-bf16", "rerank-layers-2", "rerank-layers-2-int8", "rerank-layers-2-openvino-bf16",
         "cross-encoder", "cross-encoder-int8", "cross-encoder-openvino-bf16"),
    ),
    Group("large", ("int8", "openvino-bf16"), size="large"),
)  # fmt: skip


def options_of(
    group: Group, given: BenchOptions, work: Path, *, without: Sequence[str] = (),
    bundles: Sequence[tuple[str, Path]] = (),
) -> BenchOptions:
    """The bench of a group: `given` with its peers, and its size where `given` has no checkpoint of its own."""
    return replace(
        given, random=None if given.checkpoint else group.size, work=work / group.size,
        peers=tuple(peer for peer in group.peers if peer not in without),
        bundles=tuple(bundles) if group.with_bundles else (), peak_rss=given.peak_rss and group.whole,
        store=given.store and group.whole,
    )  # fmt: skip


def read_run(path: Path) -> Run:
    """What `measure_groups` wrote; raises OutputError for anything else."""
    found = read_json(path, error=OutputError, fix="name what exporter.bench.speed wrote")
    groups = found.get("groups")
    names = [group.name for group in GROUPS]
    if not isinstance(groups, dict) or not all(name in names and "load" in one for name, one in groups.items()):
        raise OutputError(
            f"{path}", expected=f"groups of benches among {', '.join(names)}", found=f"{groups!r}"[:80],
            fix="name what exporter.bench.speed wrote",
        )
    return groups


def measure_groups(benches: dict[str, BenchOptions], output: Path) -> list[str]:
    """Measure whatever of `benches` the file `output` has not yet from a quiet machine.

    What it has of another command is measured again. Returns the groups that are worthless, or may be. The file is
    written after every group. Raises OutputError if it cannot be, or is none of ours, and what `run_bench` raises.
    """
    place = check_file(output, [options.work for options in benches.values()])
    groups: dict[str, Any] = {}
    if output.exists():
        groups = dict(read_run(output))
    for name, options in benches.items():
        found = groups.get(name, {})
        if found.get("command") == options.command and found["load"]["worthless"] is False:
            continue
        sys.stderr.write(f"{name}: {options.command}\n")
        groups[name] = _in_a_process(options)
        ordered = {name: groups[name] for name in [group.name for group in GROUPS] if name in groups}
        replace_file(place, (json.dumps({"groups": ordered}) + "\n").encode())
    return [name for name, found in groups.items() if found["load"]["worthless"] is not False]


def _in_a_process(options: BenchOptions) -> dict[str, Any]:
    """Memory that one group's models leave behind is no other's."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        found: dict[str, Any] = pool.apply(_bench, (options,))
        return found


def _bench(options: BenchOptions) -> dict[str, Any]:
    return run_bench(options).to_json()


def main(arguments: list[str] | None = None) -> int:
    """Prepare or measure; returns the exit code, 1 if a group's times are worthless."""
    parser = argparse.ArgumentParser(prog="python -m glimmer_export.exporter.bench.speed", description=__doc__)
    names = [group.name for group in GROUPS]
    parser.add_argument("--work", type=Path, required=True, help="keeps what is exported, a folder for each size")
    parser.add_argument("-o", "--output", type=Path, help="what is measured, as JSON")
    parser.add_argument("--prepare", action="store_true", help="only export what is not there yet")
    parser.add_argument("--group", choices=names, action="append", help="default: all")
    parser.add_argument("--without", action="append", default=[], help="a peer that is left out")
    parser.add_argument("--bundle", action="append", default=[], help="NAME=DIR, another bundle of base")
    parser.add_argument("--checkpoint", type=Path, help="instead of random weights of base size")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=3, help="blocks of each contender")
    parser.add_argument("--block-seconds", type=float, default=BenchOptions.block_seconds)
    given = parser.parse_args(arguments)
    try:
        options = BenchOptions(
            checkpoint=given.checkpoint, threads=given.threads, repeats=given.repeats,
            block_seconds=given.block_seconds,
        )
        bundles = bundle_peers(given.bundle)
        benches = {
            group.name: options_of(group, options, given.work, without=given.without, bundles=bundles)
            for group in GROUPS
            if group.name in (given.group or names)
        }
        for bench in benches.values():
            bench.check()
        if given.prepare:
            for name, bench in benches.items():
                sys.stderr.write(f"{name}: {prepare_bench(bench)}\n")
            return 0
        if given.output is None:
            raise OptionError("--output", expected="a file for what is measured", found="none", fix="name one")
        worthless = measure_groups(benches, given.output)
    except GlimmerError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return EXIT_ERROR
    if worthless:
        sys.stderr.write(f"worthless, to be measured again: {', '.join(worthless)}\n")
    return int(bool(worthless))


if __name__ == "__main__":
    sys.exit(main())
