"""Writes the golden directories with the real writers: flax's msgpack, tensorstore's zarr, Orbax.

Run by an interpreter that has them: `python write_t5x.py WEIGHTS OUTPUT`. WEIGHTS holds, for each golden directory,
`NAME.npz` with the known model's tensors (float32, by the names of glimmer-export); of glimmer-export nothing is
needed, so that the layouts are written as T5X has them and not as a reader of ours would wish.

Beside each T5 stands what T5X computes from the very tree that is written: `outputs.npz`, by T5X's own formulas.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}
HEADS = {"t5x_inline": (3, 4), "orbax_ocdbt": (3, 4), "orbax_plain": (3, 4), "t5x_zarr": (2, 8), "orbax_zarr3": (2, 8)}


def put(tree, path, value):
    *folders, last = path.split("/")
    for folder in folders:
        tree = tree.setdefault(folder, {})
    tree[last] = np.asarray(value)


def kernel(array, below, heads):
    """Torch's (out, in) as T5X's (in, out); with `heads` an attention's heads have an axis of their own."""
    array = np.ascontiguousarray(array.T)
    if heads is None or "Attention" not in below:
        return array
    return array.reshape(*heads, -1) if below.endswith(".o.weight") else array.reshape(-1, *heads)


def layer_name(below, decoder):
    """T5X's name, in a layer, of `layer.0.SelfAttention.q.weight` and so on."""
    _, place, module, *rest = below.split(".")
    if module == "layer_norm":
        names = ["self_attention", "cross_attention", "mlp"] if decoder else ["attention", "mlp"]
        return f"pre_{names[int(place)]}_layer_norm/scale"
    if module == "DenseReluDense":
        return f"mlp/{rest[0]}/kernel"
    if module == "EncDecAttention":
        return f"encoder_decoder_attention/{ATTENTION[rest[0]]}/kernel"
    return f"{'self_attention' if decoder else 'attention'}/{ATTENTION[rest[0]]}/kernel"


def tree_of(weights, roots, heads=None, bias_per_layer=False):
    """The unrolled tree: `layers_{i}` below each stack's root."""
    tree = {}
    depths = {}
    for name in weights:
        stack, block, *rest = name.split(".")
        if block == "block":
            depths[stack] = max(depths.get(stack, 0), int(rest[0]) + 1)
    for name, array in weights.items():
        stack, _, rest = name.partition(".")
        kind = "decoder" if stack == "decoder" else "encoder"
        root = roots.get(stack, stack)
        if stack == "shared":
            put(tree, "token_embedder/embedding", array)
        elif stack == "lm_head":
            put(tree, "decoder/logits_dense/kernel", array.T)
        elif stack == "score":
            put(tree, "score/kernel" if rest == "weight" else "score/bias", array.T)
        elif rest == "final_layer_norm.weight":
            put(tree, f"{root}/{kind}_norm/scale", array)
        elif "relative_attention_bias" in rest and bias_per_layer:
            for layer in range(depths[stack]):
                put(tree, f"{root}/layers_{layer}/relpos_bias/rel_embedding", array.T)
        elif "relative_attention_bias" in rest:
            put(tree, f"{root}/relpos_bias/rel_embedding", array.T)
        else:
            _, layer, below = rest.split(".", 2)
            value = array if array.ndim == 1 else kernel(array, below, heads)
            put(tree, f"{root}/layers_{layer}/{layer_name(below, stack == 'decoder')}", value)
    return tree


def scanned(tree, roots):
    """The tree as flax's scan leaves it: the layers of a stack on axis 1, one name deeper."""
    for root in {*roots.values(), "decoder"}:
        stack = tree[root]
        layers = [stack.pop(f"layers_{index}") for index in range(sum(name.startswith("layers_") for name in stack))]
        kind = "decoder" if root == "decoder" else "encoder"
        stack[kind] = jax.tree.map(lambda *arrays: np.stack(arrays, axis=1), *layers)
    return tree


# What T5X computes (t5x/examples/t5/network.py, layers.py), on the tree itself.


def norm(x, scale):
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6) * scale


def bias(table, queries, keys, bidirectional, buckets=8, max_distance=16):
    relative = -(np.arange(keys)[None, :] - np.arange(queries)[:, None])
    offset = np.zeros_like(relative)
    if bidirectional:
        buckets //= 2
        offset = (relative < 0) * buckets
        relative = np.abs(relative)
    relative = np.maximum(relative, 0)
    exact = buckets // 2
    far = np.log(np.maximum(relative, 1).astype(np.float32) / exact) / math.log(max_distance / exact)
    far = np.minimum(exact + (far * (buckets - exact)).astype(np.int32), buckets - 1)
    return table[:, offset + np.where(relative < exact, relative, far)]


def attention(parameters, x, y, scores_bias, heads):
    def project(name, inputs):
        return jnp.einsum("bld,dhk->blhk", inputs, parameters[name]["kernel"].reshape(inputs.shape[-1], *heads))

    query, key, value = project("query", x), project("key", y), project("value", y)
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key) + scores_bias)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    return jnp.einsum("blhk,hkd->bld", mixed, parameters["out"]["kernel"].reshape(*heads, x.shape[-1]))


def mlp(parameters, x):
    if "wi" in parameters:
        return jax.nn.relu(x @ parameters["wi"]["kernel"]) @ parameters["wo"]["kernel"]
    gate = jax.nn.gelu(x @ parameters["wi_0"]["kernel"], approximate=True)
    return (gate * (x @ parameters["wi_1"]["kernel"])) @ parameters["wo"]["kernel"]


def layers(stack, kind):
    if kind in stack:
        count = stack[kind]["mlp"]["wo"]["kernel"].shape[1]
        return [jax.tree.map(lambda array, index=index: array[:, index], stack[kind]) for index in range(count)]
    return [stack[f"layers_{index}"] for index in range(sum(name.startswith("layers_") for name in stack))]


def table(stack, first):
    return (stack.get("relpos_bias") or first["relpos_bias"])["rel_embedding"]


def outputs(tree, heads):
    """Encoder states (1, 9, d_model) and logits (1, 5, vocab) of fixed tokens, float32."""
    random = np.random.default_rng(3)
    input_ids, decoder_ids = random.integers(2, 40, (1, 9)), random.integers(2, 40, (1, 5))
    with jax.default_matmul_precision("highest"):
        tree = jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), tree)
        embedding = tree["token_embedder"]["embedding"]
        encoder, decoder = layers(tree["encoder"], "encoder"), layers(tree["decoder"], "decoder")
        x = embedding[input_ids]
        own = bias(table(tree["encoder"], encoder[0]), 9, 9, bidirectional=True)
        for layer in encoder:
            y = norm(x, layer["pre_attention_layer_norm"]["scale"])
            x = x + attention(layer["attention"], y, y, own, heads)
            x = x + mlp(layer["mlp"], norm(x, layer["pre_mlp_layer_norm"]["scale"]))
        states = norm(x, tree["encoder"]["encoder_norm"]["scale"])
        x = embedding[decoder_ids]
        own = bias(table(tree["decoder"], decoder[0]), 5, 5, bidirectional=False)
        own = own + jnp.where(np.tril(np.ones((5, 5))), 0.0, -1e10)
        for layer in decoder:
            y = norm(x, layer["pre_self_attention_layer_norm"]["scale"])
            x = x + attention(layer["self_attention"], y, y, own, heads)
            y = norm(x, layer["pre_cross_attention_layer_norm"]["scale"])
            x = x + attention(layer["encoder_decoder_attention"], y, states, 0.0, heads)
            x = x + mlp(layer["mlp"], norm(x, layer["pre_mlp_layer_norm"]["scale"]))
        x = norm(x, tree["decoder"]["decoder_norm"]["scale"])
        if "logits_dense" in tree["decoder"]:
            logits = x @ tree["decoder"]["logits_dense"]["kernel"]
        else:
            logits = x @ embedding.T / jnp.sqrt(x.shape[-1])
    return {"input_ids": input_ids, "decoder_input_ids": decoder_ids, "states": states, "logits": logits}


# The writers.


def state():
    """What stands beside the parameters in a train state: the step, and the optimizer's own arrays."""
    return {"step": np.int32(1000), "param_states": {"token_embedder": {"v": np.linspace(1, 2, 12, dtype=np.float32)}}}


def write_msgpack(directory, target):
    directory.mkdir(parents=True, exist_ok=True)
    content = {"version": 3, "optimizer": {"target": target, "state": state()}}
    (directory / "checkpoint").write_bytes(flax.serialization.msgpack_serialize(content))


def write_zarr(directory, target):
    """As T5X's Checkpointer does: a zarr folder for every array, and its spec in the msgpack file.

    The specs say where the writer had put them, which is nowhere on the reader's machine.
    """

    def write(path, array):
        name = "target." + ".".join(key.key for key in path)
        metadata = {"shape": list(array.shape), "chunks": list(array.shape), "compressor": {"id": "gzip", "level": 1}}
        if array.ndim == 2:
            metadata["chunks"] = [array.shape[0], max(1, array.shape[1] // 2)]
        spec = {"driver": "zarr", "dtype": array.dtype.name, "metadata": metadata}
        here = {"driver": "file", "path": str(directory / name)}
        ts.open(ts.Spec({**spec, "kvstore": here}), create=True, open=True).result().write(array).result()
        return {**spec, "kvstore": {"driver": "gcs", "bucket": "t5x-dummy-bucket", "path": f"elsewhere/{name}"}}

    write_msgpack(directory, jax.tree_util.tree_map_with_path(write, target))


def write_orbax(directory, target, **options):
    tree = {"target": jax.tree.map(jnp.asarray, target), "state": state()}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as checkpointer:
        checkpointer.save(directory.resolve(), args=ocp.args.PyTreeSave(tree))
    (directory / "commit_success.txt").unlink()  # it says where on this machine the directory was written


def write_managed(directory, target):
    """As `CheckpointManager` lays a step out: its item is the folder `default`."""
    options = {"use_ocdbt": True, "use_zarr3": True}
    write_orbax(directory / "default", target, **options)


def main(source, output):
    weights = {name: dict(np.load(source / f"{name}.npz")) for name in HEADS}

    fid = {"live_encoder": "encoder"}
    tree = tree_of(weights["t5x_inline"], fid)
    flax.serialization.MAX_CHUNK_SIZE = 1 << 10  # so that even here arrays are written in pieces
    write_msgpack(output / "t5x_inline", tree)
    np.savez(output / "t5x_inline" / "outputs.npz", **outputs(tree, HEADS["t5x_inline"]))

    write_zarr(output / "t5x_zarr", tree_of(weights["t5x_zarr"], {"memory_encoder": "passage_encoder"}))

    tree = scanned(tree_of(weights["orbax_ocdbt"], fid, HEADS["orbax_ocdbt"], bias_per_layer=True), fid)
    write_orbax(output / "orbax_ocdbt", tree, use_ocdbt=True)
    np.savez(output / "orbax_ocdbt" / "outputs.npz", **outputs(tree, HEADS["orbax_ocdbt"]))

    roots = {"memory_encoder": "memory_encoder", "live_encoder": "live_encoder"}
    write_managed(output / "orbax_zarr3", scanned(tree_of(weights["orbax_zarr3"], roots), roots))

    tree = tree_of(weights["orbax_plain"], fid, HEADS["orbax_plain"], bias_per_layer=True)
    tree = jax.tree.map(lambda array: array.astype(jnp.bfloat16), tree)
    write_orbax(output / "orbax_plain", tree, use_ocdbt=False)
    np.savez(output / "orbax_plain" / "outputs.npz", **outputs(tree, HEADS["orbax_plain"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
