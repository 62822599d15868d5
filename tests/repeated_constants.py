"""Products whose constant stands against a batch: a compiler copies such a weight once for each row of the batch."""

from __future__ import annotations

from itertools import zip_longest

import onnx

__all__ = ["repeated_constants"]


def repeated_constants(model: onnx.ModelProto) -> list[str]:
    """Products one of whose operands is made of constants alone, has a batch of matrices, and is repeated for more.

    A plain matrix is none: what it meets is taken as the rows of one product.
    """
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    dims = {
        value.name: [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    constants = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    known = {**dims, **constants}
    made = {""} | set(constants)
    found = []
    for node in model.graph.node:
        if made.issuperset(node.input):
            made.update(node.output)
        if node.op_type != "MatMul":
            continue
        for constant, other in (node.input, reversed(node.input)):
            if constant in made and other not in made and len(known[constant]) > 2:
                batches = zip_longest(reversed(known[constant][:-2]), reversed(known[other][:-2]), fillvalue=1)
                if any(mine == 1 and theirs != 1 for mine, theirs in batches):
                    found.append(f"{node.name}: {known[constant]} beside {known[other]}")
    return found
