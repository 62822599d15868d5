"""A bundle that was damaged, changed or tampered with is refused by name, before any of it is used."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glimmer_export.runtime import Session
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import MANIFEST, BundleError, GlimmerError, TokenizerError, file_digest
from tests.bundle_factory import VOCABULARY, make_bundle, rewrite
from tests.exported import Exported, copy_bundle, update_manifest

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def bundle(glimmer: Exported, tmp_path: Path) -> Path:
    return copy_bundle(glimmer, tmp_path / "bundle")


def manifest(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))


def graph_file(data: dict[str, Any], graph: str = "live_stage_a") -> dict[str, Any]:
    return data["graphs"][graph]["files"][0]


def test_an_untouched_copy_opens(glimmer, bundle):
    with Session.open(bundle, glimmer.store, threads=1) as session:
        assert session.answer("w33").token_ids == glimmer.session.answer("w33").token_ids


@pytest.mark.parametrize("name", ["graphs/live_stage_a.onnx", "graphs/weights.data", "tokenizer.json"])
class TestFiles:
    def test_changed_bytes(self, bundle, name):
        content = bytearray((bundle / name).read_bytes())
        content[len(content) // 2] ^= 1
        (bundle / name).write_bytes(content)
        with pytest.raises(BundleError, match=f"{name}: expected SHA-256"):
            Bundle.open(bundle)

    def test_truncated(self, bundle, name):
        os.truncate(bundle / name, 100)
        with pytest.raises(BundleError, match=f"{name}: expected [0-9]+ bytes, found 100 bytes"):
            Bundle.open(bundle)

    def test_grown(self, bundle, name):
        with (bundle / name).open("ab") as stream:
            stream.write(b"\0")
        with pytest.raises(BundleError, match="bytes"):
            Bundle.open(bundle)

    def test_missing(self, bundle, name):
        (bundle / name).unlink()
        with pytest.raises(BundleError, match=f"a file {name}, found none"):
            Bundle.open(bundle)

    @pytest.mark.parametrize(("make", "kind"), [(Path.mkdir, "a directory"), (os.mkfifo, "a FIFO")])
    def test_something_else_in_its_place(self, bundle, name, make, kind):
        (bundle / name).unlink()
        make(bundle / name)
        with pytest.raises(BundleError, match=f"{name}: expected a regular file, found {kind}"):
            Bundle.open(bundle)

    def test_behind_a_link_it_is_verified(self, bundle, name, tmp_path):
        """A download cache keeps the files elsewhere, and links to them."""
        shutil.move(bundle / name, tmp_path / "outside")
        (bundle / name).symlink_to(tmp_path / "outside")
        Bundle.open(bundle)
        content = bytearray((tmp_path / "outside").read_bytes())
        content[-1] ^= 1
        (tmp_path / "outside").write_bytes(content)
        with pytest.raises(BundleError, match=f"{name}: expected SHA-256"):
            Bundle.open(bundle)


def test_a_file_that_the_manifest_does_not_name(bundle):
    """A graph could read its weights from it."""
    (bundle / "graphs" / "more.data").write_bytes(b"weights")
    with pytest.raises(BundleError, match=r"only the files of its manifest in graphs, found more\.data"):
        Bundle.open(bundle)


def test_a_folder_behind_a_link(bundle, tmp_path):
    shutil.move(bundle / "graphs", tmp_path / "outside")
    (bundle / "graphs").symlink_to(tmp_path / "outside")
    Bundle.open(bundle)
    (tmp_path / "outside" / "more.data").write_bytes(b"weights")
    with pytest.raises(BundleError, match="only the files of its manifest"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    "path",
    ["../bundle/graphs/live_stage_a.onnx", "graphs/../../outside", "{absolute}", "graphs\\live_stage_a.onnx", "a\0b",
     "..", ""],
)  # fmt: skip
def test_a_path_out_of_the_bundle(bundle, tmp_path, path):
    shutil.copy(bundle / "graphs" / "live_stage_a.onnx", tmp_path / "outside")
    data = manifest(bundle)
    graph_file(data)["path"] = path.format(absolute=tmp_path / "outside")
    rewrite(bundle / MANIFEST, **data)
    with pytest.raises(BundleError, match="stay inside"):
        Bundle.open(bundle)


CACHE = "past_key_values.0.decoder.key"


def swap_inputs(data: dict[str, Any]) -> None:
    inputs = data["graphs"]["live_stage_a"]["inputs"]
    inputs[0], inputs[1] = inputs[1], inputs[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(schema_version=11), "schema_version 4 to 10, found 11; install a newer"),
        (lambda data: data.update(schema_version=3), "schema_version 4 to 10, found 3"),
        (lambda data: data.update(schema_version="1"), "schema_version"),
        (lambda data: data.update(schema_version=True), "schema_version"),
        (lambda data: data.pop("schema_version"), "schema_version"),
        (lambda data: data.update(extra=1), "only the fields .*found 'extra'"),
        (lambda data: data["model"].update(extra=1), r"model.*'extra'"),
        (lambda data: graph_file(data).update(extra=1), r"files\[0\].*'extra'"),
        (lambda data: data.pop("codecs"), "a field codecs"),
        (lambda data: data["model"].pop("d_model"), "a field d_model"),
        (lambda data: data["model"].pop("d_kv"), "a field d_kv"),
        (lambda data: data["model"].update(question_layout="apart"), "question_layout: expected block, or joined"),
        (
            lambda data: data["model"].update(question_layout="joined", input_template="{question}"),
            "question_layout: expected block, or joined if there is no memory, found joined",
        ),
        (lambda data: data["model"].update(input_template="{question}"), "input_template: expected a template if"),
        (lambda data: data["model"].update(d_model="32"), r"model\.d_model: expected int, found '32'"),
        (lambda data: data["model"].update(d_model=True), r"model\.d_model: expected int"),
        (lambda data: data["model"].update(d_model=64), "inputs and outputs"),
        (lambda data: data["model"].update(separate_reranker=True), "live_stage_a: .* found rerank_states"),
        (lambda data: data["model"].update(num_selected=None), "num_selected: expected 1 to num_retrieved"),
        (lambda data: data["model"].update(num_selected=0), "num_selected"),
        (lambda data: data["model"].update(num_selected=9), "num_selected"),
        (lambda data: data["model"].update(num_retrieved=0), "num_retrieved: expected 1 to"),
        (lambda data: data["model"].update(max_new_tokens=2**40), "max_new_tokens: expected 1 to"),
        (lambda data: data["model"].update(question_length=-1), "question_length: expected 1 to"),
        (lambda data: data["model"].update(eos_token_id=-1), "eos_token_id: expected 0 to"),
        (lambda data: data["model"].update(decoder_start_token_id=9999), "decoder_start_token_id: expected 0 to 64"),
        (lambda data: data["model"].update(feed_forward_proj="silu"), "expected gated-gelu or relu, found silu"),
        (lambda data: data["model"].pop("feed_forward_proj"), "a field feed_forward_proj"),
        (lambda data: data["model"].update(num_decoder_layers=3), "inputs and outputs"),
        (lambda data: data["model"].update(architecture="bert"), "glimmer, lumen, memory_fid, fid, found bert"),
        (lambda data: data["model"].update(architecture="lumen", num_selected=None), "form of stage A, found 'full'"),
        (lambda data: data.update(stage_a="lazy"), "inputs and outputs"),
        (lambda data: data.update(stage_a="half"), "a form of stage A, found 'half'"),
        (lambda data: data.update(stage_a=None), "a form of stage A, found None"),
        (lambda data: data.update(stage_a=["full"]), "stage_a: expected"),
        (lambda data: data.pop("stage_a"), "a field stage_a"),
        (lambda data: data.update(cross_attention="absorbed"), "the graphs"),
        (lambda data: data.update(cross_attention="some"), "a form of cross-attention, found some"),
        (lambda data: data.update(codecs=["int3"]), "codecs of fp16, .*, found int3"),
        (lambda data: data.update(codecs=["fp16", "fp16"]), "each codec once"),
        (lambda data: data.update(codecs=[]), "each codec once, found none"),
        (lambda data: data.update(codecs=["int8"]), "the graphs"),
        (lambda data: data["graphs"].pop("live_stage_a"), "the graphs .*live_stage_a"),
        (lambda data: data["graphs"].clear(), "the graphs .*found none"),
        (lambda data: data["graphs"].update(more=data["graphs"]["cross_kv"]), "found .*more"),
        (lambda data: data["graphs"]["cross_kv"].update(weight_bytes=-1), "weight_bytes: expected a size, found -1"),
        (lambda data: data.update(weights=None), r"only the files of its manifest in graphs, found weights\.data"),
        (lambda data: data["graphs"]["cross_kv"].update(files=[]), "cross_kv: expected at least one file"),
        (swap_inputs, "live_stage_a: expected the inputs and outputs"),
        (lambda data: data["graphs"]["cross_kv"]["outputs"].pop(), "cross_kv: expected the inputs and outputs"),
        (lambda data: data.update(fp16_boundaries=["rerank_states"]), "fp16_boundaries: .* found rerank_states"),
        (lambda data: data.update(fp16_boundaries=["question_states"]), "fp16_boundaries: .* found question_states"),
        (lambda data: data.update(fp16_boundaries=["logits"]), "fp16_boundaries: .* found logits"),
        (lambda data: data.update(fp16_boundaries=[CACHE.replace("past_key_values", "present")]), "found present.0"),
        (lambda data: data.update(fp16_boundaries=[CACHE, CACHE]), "fp16_boundaries: expected each tensor once"),
        (lambda data: data.update(fp16_boundaries="all"), "fp16_boundaries: expected a list"),
        (lambda data: data.update(fp16_boundaries=[CACHE]), f"decoder_step, {CACHE}: expected float16, found float32"),
        (
            lambda data: data["graphs"]["cross_kv"]["inputs"][0].update(dtype="float16"),
            "cross_kv, encoder_hidden_states: expected float32, found float16",
        ),
        (
            lambda data: data["graphs"]["live_stage_a"]["outputs"][1].update(dtype="float16"),
            "live_stage_a, rerank_states: expected float32, found float16",
        ),
        (lambda data: graph_file(data).update(sha256="0" * 64), "SHA-256 000"),
        (lambda data: graph_file(data).update(bytes=1.5), "bytes: expected int"),
        (lambda data: data.update(graphs=[]), "graphs: expected an object"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_wrong(bundle, change: Change, message):
    data = manifest(bundle)
    change(data)
    (bundle / MANIFEST).write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema_version": NaN', b"[" * 100_000])
def test_a_manifest_that_is_no_json_object(bundle, content):
    (bundle / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match="expected a JSON object"):
        Bundle.open(bundle)


def test_no_manifest(bundle, tmp_path):
    (bundle / MANIFEST).unlink()
    with pytest.raises(BundleError, match=f"a file {MANIFEST}, found none"):
        Bundle.open(bundle)
    with pytest.raises(BundleError, match="expected a bundle, found nothing of that name"):
        Bundle.open(tmp_path / "nowhere")


def test_a_file_in_place_of_a_bundle(bundle):
    with pytest.raises(BundleError):
        Bundle.open(bundle / MANIFEST)


def test_a_damaged_graph_with_a_fresh_digest(bundle):
    path = bundle / "graphs" / "cross_kv.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    update_manifest(bundle, "cross_kv")
    with pytest.raises(BundleError, match=r"cross_kv\.onnx: expected an ONNX graph"):
        Bundle.open(bundle)


def test_a_graph_that_no_runtime_can_load(bundle):
    path = bundle / "graphs" / "cross_kv.onnx"
    model = onnx.load(path, load_external_data=False)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, path)
    update_manifest(bundle, "cross_kv")
    Bundle.open(bundle)
    with pytest.raises(BundleError, match=r"cross_kv\.onnx.*that ONNX Runtime can load"):
        Session.open(bundle)


def redirect(bundle: Path, **entries: str) -> None:
    """Change where the first external weight of a graph lies."""
    path = bundle / "graphs" / "cross_kv.onnx"
    model = onnx.load(path, load_external_data=False)
    weight = next(item for item in model.graph.initializer if item.external_data)
    for pair in weight.external_data:
        pair.value = entries.get(pair.key, pair.value)
    onnx.save(model, path)
    update_manifest(bundle, "cross_kv")


@pytest.mark.parametrize(
    "location", ["../../outside.data", "../tokenizer.json", "{tmp}/outside.data", "./weights.data", "more.data",
                 "*/_ORT_MEM_ADDR_/*", ""]
)  # fmt: skip
def test_weights_that_the_manifest_does_not_vouch_for(bundle, tmp_path, location):
    """ONNX Runtime would read whatever file a graph names."""
    shutil.copy(bundle / "graphs" / "weights.data", tmp_path / "outside.data")
    redirect(bundle, location=location.format(tmp=tmp_path))
    with pytest.raises(BundleError, match=r"cross_kv\.onnx: expected weights in the files of its manifest, found"):
        Bundle.open(bundle)


@pytest.mark.parametrize("entries", [{"offset": str(1 << 40)}, {"length": str(1 << 40)}])
def test_weights_past_the_end_of_their_file(bundle, entries):
    redirect(bundle, **entries)
    with pytest.raises(BundleError, match=r"cross_kv\.onnx: expected weights within the [0-9]+ bytes of weights\.data"):
        Bundle.open(bundle)


@pytest.mark.parametrize("entries", [{"offset": "-4096"}, {"length": "some"}])
def test_weights_at_no_place(bundle, entries):
    redirect(bundle, **entries)
    with pytest.raises(BundleError, match=r"cross_kv\.onnx: expected an ONNX graph"):
        Bundle.open(bundle)


@pytest.mark.parametrize(("change", "refusal"), [
    ("name", r"memory_encoder\.onnx: expected I/O .*'attention_mask'.* found .*'mask'"),
    ("dtype", r"memory_encoder\.onnx, attention_mask: expected tensor\(int32\), found tensor\(int64\)"),
    ("rank", r"memory_encoder\.onnx: expected I/O .*'hidden_states', 'tensor\(float\)', 3.* found .*, 1\)"),
], ids=["name", "dtype", "rank"])
def test_a_graph_of_other_inputs_with_a_fresh_digest(bundle, change, refusal):
    path = bundle / "graphs" / "memory_encoder.onnx"
    model = onnx.load(path)
    mask = next(value for value in model.graph.input if value.name == "attention_mask")
    if change == "name":
        for node in model.graph.node:
            node.input[:] = ["mask" if name == "attention_mask" else name for name in node.input]
        mask.name = "mask"
    elif change == "dtype":
        mask.type.tensor_type.elem_type = onnx.TensorProto.INT64
        cast = onnx.helper.make_node("Cast", ["attention_mask"], ["narrow"], to=onnx.TensorProto.INT32)
        for node in model.graph.node:
            node.input[:] = ["narrow" if name == "attention_mask" else name for name in node.input]
        model.graph.node.insert(0, cast)
    else:
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        model.graph.output[0].type.tensor_type.shape.dim.add().dim_param = "flat"
        model.graph.initializer.append(onnx.helper.make_tensor("flat", onnx.TensorProto.INT64, [1], [-1]))
        (last,) = (node for node in model.graph.node if "hidden_states" in node.output)
        last.output[:] = ["before"]
        model.graph.node.append(onnx.helper.make_node("Reshape", ["before", "flat"], ["hidden_states"]))
    onnx.save(model, path)
    update_manifest(bundle, "memory_encoder")
    with pytest.raises(BundleError, match=refusal):
        Session.open(bundle)


def test_a_tokenizer_that_is_none_with_a_fresh_digest(bundle):
    write_tokenizer_bytes(bundle, b'{"model": {}}')
    with pytest.raises(TokenizerError, match=r"expected a tokenizer\.json"):
        Bundle.open(bundle)


def test_a_tokenizer_larger_than_the_embedding(bundle):
    content = json.loads((bundle / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["one more"] = len(VOCABULARY)
    write_tokenizer_bytes(bundle, json.dumps(content).encode())
    with pytest.raises(TokenizerError, match=f"{len(VOCABULARY)} rows, found an id {len(VOCABULARY)}"):
        Bundle.open(bundle)


def write_tokenizer_bytes(bundle: Path, content: bytes) -> None:
    path = bundle / "tokenizer.json"
    path.write_bytes(content)
    digest = file_digest(path)
    entry = {"path": "tokenizer.json", "bytes": len(content), "sha256": digest}
    rewrite(bundle / MANIFEST, tokenizer=entry, tokenizer_digest=digest)


@pytest.mark.parametrize(
    "template", ["{title}", "{question.__class__}", "{question!r}", "{question:>9}", "{", "{}", "{0}", "no field", ""]
)
def test_a_template_that_is_none(bundle, template):
    model = manifest(bundle)["model"]
    rewrite(bundle / MANIFEST, model={**model, "question_template": template})
    with pytest.raises(BundleError, match="question_template"):
        Bundle.open(bundle)


@pytest.mark.parametrize("template", ["{body}", "{question.__class__}", "{text!r}", "no field"])
def test_an_input_template_that_is_none(tmp_path, template):
    bundle = make_bundle(tmp_path / "bundle", architecture="fid")
    model = manifest(bundle)["model"] | {"question_layout": "joined"}
    rewrite(bundle / MANIFEST, model={**model, "input_template": "{question} {text}"})
    Bundle.open(bundle)
    rewrite(bundle / MANIFEST, model={**model, "input_template": template})
    with pytest.raises(BundleError, match="input_template"):
        Bundle.open(bundle)


JSON_VALUE = st.sampled_from(
    [None, True, -1, 0, 1, 2**70, 0.5, "", "x", "../x", "{", [], [1], {}, {"x": 1}, "fid", "fp32", "\0"]
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The path of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for path in [path] if path] + [place for key, item in items for place in places(item, (*path, key))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_the_manifest_is_refused_by_name_or_harmless(glimmer, tmp_path_factory, data):
    """One value replaced, or removed: never anything but a named error."""
    original = json.loads((glimmer.bundle / MANIFEST).read_text(encoding="utf-8"))
    changed = copy.deepcopy(original)
    *path, last = data.draw(st.sampled_from(places(original)))
    parent = changed
    for key in path:
        parent = parent[key]
    if data.draw(st.booleans()):
        parent[last] = data.draw(JSON_VALUE)
    else:
        del parent[last]
    bundle = tmp_path_factory.mktemp("fuzz")
    (bundle / MANIFEST).write_text(json.dumps(changed), encoding="utf-8")
    for name in ("graphs", "tokenizer.json"):
        # Hard links: a copy for each example would be slow, a symbolic link is refused.
        if name == "graphs":
            shutil.copytree(glimmer.bundle / name, bundle / name, copy_function=os.link)
        else:
            os.link(glimmer.bundle / name, bundle / name)
    try:
        opened = Bundle.open(bundle)
        if opened.text is not None:
            opened.text.question("w1")
            opened.text.passage("w1", "w2")
    except GlimmerError:
        pass
    finally:
        shutil.rmtree(bundle)
