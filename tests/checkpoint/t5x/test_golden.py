"""Directories that the real writers wrote give the known models: every bit of them, and what T5X computes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from glimmer_export.exporter.checkpoint.read import Checkpoint, check_shapes
from glimmer_export.exporter.checkpoint.t5x import Conversion, T5xArrays, convert, convert_t5x
from glimmer_export.exporter.checkpoint.t5x.sources import Source
from glimmer_export.exporter.checkpoint.weights import weight_shapes
from glimmer_export.exporter.stages import model_from_checkpoint
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.runtime.contract import CheckpointError
from tests.assert_close import assert_close
from tests.checkpoint.golden.known import DIRECTORY, GOLDEN, KNOWN, known_weights
from tests.checkpoint.t5x_trees import pack

MAPS = {"t5x_zarr": {"memory_encoder": "passage_encoder"}}
T5S = [name for name in GOLDEN if (DIRECTORY / name / "outputs.npz").exists()]
MAX_BYTES = 200_000
known = cache(known_weights)


def read(golden: str) -> Conversion:
    return convert_t5x(DIRECTORY / golden, KNOWN[GOLDEN[golden][0]], MAPS.get(golden, {}))


def assert_known(golden: str) -> None:
    """Every tensor equals the known model's, bit for bit."""
    expected, found = known(*GOLDEN[golden]), read(golden).tensors
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].is_contiguous(), name
        assert torch.equal(found[name], tensor), name


def assert_as_t5x_computes(golden: str) -> None:
    """Encoder states and logits equal those of T5X's formulas on the tree itself."""
    config, tensors = KNOWN[GOLDEN[golden][0]], read(golden).tensors
    check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, weight_shapes(config), subject=golden)
    model = model_from_checkpoint(Checkpoint(DIRECTORY / golden, config, tensors, None))
    stored = np.load(DIRECTORY / golden / "outputs.npz")
    ids = torch.from_numpy(stored["input_ids"]).int()
    mask = torch.ones_like(ids)
    states = model.encode_joined(ids[:, None], mask[:, None]).squeeze(1)
    assert_close(states, stored["states"], "t5_encoder_states")
    logits = model.decode(torch.from_numpy(stored["decoder_input_ids"]).int(), states, mask)
    assert_close(logits, stored["logits"], "t5_logits")


@pytest.mark.parametrize("golden", GOLDEN)
def test_every_tensor_is_the_known_models(golden: str) -> None:
    assert_known(golden)
    assert read(golden).unused == ()


@pytest.mark.parametrize("golden", T5S)
def test_outputs_are_those_of_t5x(golden: str) -> None:
    assert_as_t5x_computes(golden)


def test_three_layouts_are_held_against_t5x() -> None:
    assert T5S == ["t5x_inline", "orbax_ocdbt", "orbax_plain"]


@pytest.mark.parametrize("golden", GOLDEN)
def test_outputs_equal_the_known_torch_models_bit_for_bit(golden: str) -> None:
    config = KNOWN[GOLDEN[golden][0]]
    models = [
        model_from_checkpoint(Checkpoint(DIRECTORY, config, tensors, None))
        for tensors in (read(golden).tensors, known_weights(*GOLDEN[golden]))
    ]
    ids = torch.randint(2, 40, (2, 7), generator=torch.Generator().manual_seed(1)).int()
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    encode = [model.encode_memory if config.shape.traits.has_memory else model.encode_joined for model in models]
    lift = (lambda tensor: tensor) if config.shape.traits.has_memory else (lambda tensor: tensor[:, None])
    states = [run(lift(ids), lift(mask)).reshape(2, 7, -1) for run in encode]
    assert torch.equal(*states)
    logits = [model.decode(ids, state, mask) for model, state in zip(models, states, strict=True)]
    assert torch.equal(*logits)
    assert logits[0].std() > 0.1


@pytest.mark.parametrize("golden", GOLDEN)
def test_a_golden_directory_is_small(golden: str) -> None:
    assert sum(path.stat().st_size for path in (DIRECTORY / golden).rglob("*") if path.is_file()) < MAX_BYTES


# Mutations: one tensor not transposed, or taken from another layer. Both comparisons must see each of them.

Mutate = Callable[[Source], Source]


def not_transposed(source: Source) -> Source:
    return replace(source, transposed=False)


def of_another_layer(source: Source) -> Source:
    if source.layer is not None:
        return replace(source, layer=1 - source.layer if source.layer < 2 else 0)
    swapped = {"layers_0": "layers_1", "layers_1": "layers_0", "layers_2": "layers_0"}
    path = next(source.paths[0].replace(old, new) for old, new in swapped.items() if old in source.paths[0])
    return replace(source, paths=(path,))


def mutations(golden: str) -> list[tuple[str, str, Mutate]]:
    found = []
    for name, shape in weight_shapes(KNOWN[GOLDEN[golden][0]]).items():
        if len(shape) == 2 and name != "shared.weight":
            found.append((golden, name, not_transposed))
        if ".block." in name and "relative_attention_bias" not in name:
            found.append((golden, name, of_another_layer))
    return found


MUTATIONS = [
    pytest.param(*mutation, id=f"{mutation[0]} {mutation[1]} {mutation[2].__name__}")
    for golden in GOLDEN for mutation in mutations(golden)
]


class Opened(T5xArrays):
    """A tree whose arrays are read once for all mutations."""

    tensor = cache(T5xArrays.tensor)


opened = cache(Opened)


@pytest.mark.parametrize(("golden", "name", "mutate"), MUTATIONS)
def test_a_wrong_transpose_or_layer_is_seen(
    golden: str, name: str, mutate: Mutate, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = convert.tensor_sources
    monkeypatch.setattr(
        convert, "tensor_sources", lambda *given: (found := sources(*given)) | {name: mutate(found[name])}
    )
    # What is left of it, if another layer took its place, has no reader.
    monkeypatch.setattr(convert, "_check_names", lambda *given: None)
    monkeypatch.setattr(convert, "T5xArrays", opened)
    with pytest.raises(AssertionError, match=name):
        assert_known(golden)
    if golden in T5S:
        seen = "|".join([*(TOLERANCES[key].reason for key in ("t5_encoder_states", "t5_logits")), f"tensor {name}"])
        with pytest.raises((AssertionError, CheckpointError), match=seen):
            assert_as_t5x_computes(golden)


def test_the_unmutated_reader_passes_without_the_check_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "_check_names", lambda *given: None)
    for golden in GOLDEN:
        assert_known(golden)


def test_arrays_named_by_placeholders(tmp_path: Path) -> None:
    """Orbax's older releases left `PLACEHOLDER://name` in a msgpack file, and the arrays beside it."""
    folder = Path(copytree(DIRECTORY / "orbax_plain", tmp_path / "step"))
    tree: dict[str, object] = {}
    for path in folder.glob("target.*"):
        place = tree
        *folders, last = path.name.split(".")
        for part in folders:
            place = place.setdefault(part, {})
        place[last] = f"PLACEHOLDER://{path.name}"
    pack(folder, tree)
    found = convert_t5x(folder, KNOWN["fid v1.0"], {}).tensors
    expected = known_weights("fid v1.0", torch.bfloat16)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
