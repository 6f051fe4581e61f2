"""ONNX files that others made, brought to this project's convention: pictures (N, H, W, 3), results (N, H, W, 1)."""

from __future__ import annotations

from typing import Any

from rbcedge.convert.onnx import checked
from rbcedge.convert.onnx_int8 import tidy

from rbcedge.errors import RbcedgeError


def to_convention(onnx: bytes, role: str) -> bytes:
    """Return the network with channels last at both ends; a network that has them first gets transpositions.

    Weights kept in a second file are not read: a bundle's networks are single files.

    Raises
    ------
    RbcedgeError
        Where it is not valid, holds an operator that ONNX Runtime does not know, has not one float32 picture input
        and one float32 output, or an output of the wrong shape. The message names no file: the caller does.
    """
    model = checked(onnx)
    runnable(onnx)
    shape = _dims(model.graph.input[0])
    if shape[3] != 3 and shape[1] == 3:
        _channels_first_input(model)
    elif shape[3] != 3:
        raise RbcedgeError(f"the input must be pictures of three channels, it is {_words(shape)}")
    out = _dims(model.graph.output[0])
    if role == "segmenter":
        if len(out) != 4 or 1 not in (out[3], out[1]):
            raise RbcedgeError(f"a segmenter gives (N, H, W, 1), the probability of cell; this one gives {_words(out)}")
        if out[3] != 1:
            _channels_first_output(model)
    elif len(out) != 2:
        raise RbcedgeError(f"a classifier gives (N, classes); this one gives {_words(out)}")
    return checked(tidy(model)).SerializeToString()  # type: ignore[no-any-return]


def runnable(onnx: bytes) -> None:
    """Raise `RbcedgeError` where ONNX Runtime cannot run a network, naming the operator it does not know."""
    from rbcedge.convert.onnx import session

    try:
        session(onnx)
    except Exception as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise RbcedgeError(f"ONNX Runtime cannot run it ({reason})") from e


def _dims(value: Any) -> list[int | None]:
    return [d.dim_value or None for d in value.type.tensor_type.shape.dim]


def _words(shape: list[int | None]) -> str:
    return f"({', '.join('any' if d is None else str(d) for d in shape)})"


def _channels_first_input(model: Any) -> None:
    import onnx as library

    value = model.graph.input[0]
    name = value.name
    inner = f"{name}_channels_first"
    for node in model.graph.node:
        for k, used in enumerate(node.input):
            if used == name:
                node.input[k] = inner
    model.graph.node.insert(
        0, library.helper.make_node("Transpose", [name], [inner], name="to_channels_first", perm=[0, 3, 1, 2])
    )
    _reorder(value, (0, 2, 3, 1))


def _channels_first_output(model: Any) -> None:
    import onnx as library

    value = model.graph.output[0]
    name = value.name
    inner = f"{name}_channels_first"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for k, used in enumerate(names):
                if used == name:
                    names[k] = inner
    model.graph.node.append(
        library.helper.make_node("Transpose", [inner], [name], name="to_channels_last", perm=[0, 2, 3, 1])
    )
    _reorder(value, (0, 2, 3, 1))


def _reorder(value: Any, order: tuple[int, ...]) -> None:
    dims = list(value.type.tensor_type.shape.dim)
    kept = [type(dims[0])() for _ in dims]
    for new, old in zip(kept, order, strict=True):
        new.CopyFrom(dims[old])
    del value.type.tensor_type.shape.dim[:]
    value.type.tensor_type.shape.dim.extend(kept)
