"""Which names of TensorRT's Python package our code uses, and which of them a version has.

Run it under a Python that can import TensorRT (or its bindings, against stub libraries: see docs/tensorrt.md) to add
that version to `data/tensorrt_api.json`:  python tests/tensorrt_names.py --add
It needs the standard library only, so that any environment will do.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent
TABLE = Path(__file__).parent / "data" / "tensorrt_api.json"

#: In each file: which variable (or attribute of self) holds an object of which class; "" is the package itself.
VARIABLES: dict[str, dict[str, str]] = {
    "convert/tensorrt.py": {
        "trt": "",
        "kinds": "NetworkDefinitionCreationFlag",
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "config": "IBuilderConfig",
        "cache": "ITimingCache",
        "layer": "ILayer",
        "tensor": "ITensor",
        "profile": "IOptimizationProfile",
        "error": "ParserError",
    },
    "rbcedge/engines/tensorrt_api.py": {"trt": "", "tensorrt": ""},
    "rbcedge/engines/tensorrt_layers.py": {"trt": "", "context": "IExecutionContext"},
    "rbcedge/engines/tensorrt_network.py": {"trt": ""},
    "rbcedge/engines/tensorrt_plan.py": {
        "trt": "",
        "runtime": "Runtime",
        "engine": "ICudaEngine",
        "_engine": "ICudaEngine",
        "context": "IExecutionContext",
    },
}
#: What calls return, where the code goes on with it.
RETURNS = {"ILayer.get_output": "ITensor"}


def used() -> list[str]:
    """Return every name our code uses, as "Builder.create_network" or "Runtime", sorted."""
    found: set[str] = set()
    for file, variables in VARIABLES.items():
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                found.add(_name(node, variables) or "")
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
                thing, name = node.args
                owner = _type(thing, variables)
                if owner is not None and isinstance(name, ast.Constant):
                    found.add(_joined(owner, str(name.value)))
            elif isinstance(node, ast.ClassDef):
                for base in node.bases:
                    owner = _name(base, variables) if isinstance(base, ast.Attribute) else None
                    if owner is not None:
                        methods = (m.name for m in node.body if isinstance(m, ast.FunctionDef))
                        found |= {f"{owner}.{m}" for m in methods if not m.startswith("__")}
    return sorted(name for name in found if name and not name.endswith("__"))


def _type(node: ast.AST, variables: dict[str, str]) -> str | None:
    """Return the class of what an expression gives, "" for the package, None where it is not TensorRT's."""
    if isinstance(node, ast.Name):
        return variables.get(node.id)
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return variables.get(node.attr)
        return _name(node, variables)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return RETURNS.get(_name(node.func, variables) or "")
    return None


def _name(node: ast.Attribute, variables: dict[str, str]) -> str | None:
    owner = _type(node.value, variables)
    return None if owner is None else _joined(owner, node.attr)


def _joined(owner: str, name: str) -> str:
    return f"{owner}.{name}" if owner else name


def has(trt: Any, name: str) -> bool:
    """Whether the package has a name."""
    thing = trt
    for part in name.split("."):
        thing = getattr(thing, part, None)
        if thing is None:
            return False
    return True


def package() -> ModuleType:
    """Import TensorRT, or its bindings where only those are installed."""
    try:
        return importlib.import_module("tensorrt")
    except ModuleNotFoundError:
        return importlib.import_module("tensorrt_bindings")


def main() -> None:
    """Print, or with --add record, what this environment's version lacks."""
    trt = package()
    names = used()
    absent = [n for n in names if not has(trt, n)]
    if "--add" not in sys.argv:
        print(trt.__version__, "has", len(names) - len(absent), "of", len(names), "names, without", absent)
        return
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    versions = {**table.get("absent", {}), str(trt.__version__): absent}

    def order(version: str) -> tuple[int, ...]:
        return tuple(int(p) for p in version.split(".") if p.isdigit())

    TABLE.parent.mkdir(exist_ok=True)
    whole = {"names": names, "absent": {v: versions[v] for v in sorted(versions, key=order)}}
    TABLE.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
