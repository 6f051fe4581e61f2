"""Counting operations, timing layers, the Jetson projection and the soak's judgement."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rbcedge import bundle as bundles
from rbcedge.bench.diagnosis import traffic
from rbcedge.bench.layers import profile
from rbcedge.bench.operations import Operation, graph, operations
from rbcedge.bench.result import Case, Loop, Network, Run
from rbcedge.bench.sensors import Watched
from rbcedge.engines.litert import LiteRTEngine
from rbcedge.errors import RbcedgeError

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def script(name: str) -> ModuleType:
    """Import a file of benchmarks/."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundle() -> bundles.Bundle:
    return bundles.load(bundles.default_folder(), check_files=False)


def path(bundle: bundles.Bundle, role: str) -> Path:
    artefact = bundle.find(role, "tflite", ("int8",))
    assert artefact is not None
    return bundle.path(artefact)


@pytest.mark.parametrize("role", bundles.ROLES)
def test_shapes_are_those_of_the_runtime(bundle: bundles.Bundle, role: str) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path(bundle, role)), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    known = {t["index"]: tuple(int(v) for v in t["shape"]) for t in interpreter.get_tensor_details()}
    assert graph(path(bundle, role)).shapes == {k: known[k] for k in graph(path(bundle, role)).shapes}


def test_operations_of_convolutions_are_counted_by_hand(bundle: bundles.Bundle) -> None:
    counted = operations(path(bundle, "segmenter"), (32, 48), 1)
    first, second = [o for o in counted if o.kind == "CONV_2D"][:2]
    width = first.outputs // (32 * 48)
    assert first.macs == 32 * 48 * width * 9 * 3
    assert second.macs == 32 * 48 * width * 9 * width
    up = next(o for o in counted if o.kind == "TRANSPOSE_CONV")
    # Each output place of a 2x2 stride-2 convolution has one weight for each input channel.
    assert up.macs == up.outputs * (up.inputs // (2 * 3))
    assert first.bytes(2) == 2 * (first.weights + first.inputs + first.outputs)


def test_operations_grow_with_pixels_and_batch(bundle: bundles.Bundle) -> None:
    def macs(role: str, size: tuple[int, int], batch: int) -> int:
        return sum(o.macs for o in operations(path(bundle, role), size, batch))

    assert macs("segmenter", (64, 64), 1) * 4 == macs("segmenter", (128, 128), 1)
    assert macs("classifier", (56, 56), 1) * 8 == macs("classifier", (56, 56), 8)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"no network at all, only words"):
        (tmp_path / "x.tflite").write_bytes(content)
        with pytest.raises(RbcedgeError, match=r"not a \.tflite network"):
            operations(tmp_path / "x.tflite")
    with pytest.raises(RbcedgeError):
        operations(tmp_path / "none.tflite")


def test_layers_are_timed_one_by_one(bundle: bundles.Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbcedge.bench.layers._REPEATS", 2)
    engines = (LiteRTEngine(path(bundle, "segmenter"), "int8"), LiteRTEngine(path(bundle, "classifier"), "int8"))
    segmenter, classifier = profile(bundle, "litert", engines, (32, 48), 1)
    assert len(segmenter.layers) == len(operations(path(bundle, "segmenter"), (32, 48), 1))
    assert all(layer.ms > 0 for layer in (*segmenter.layers, *classifier.layers))
    assert segmenter.sum_ms == pytest.approx(sum(layer.ms for layer in segmenter.layers))
    assert segmenter.shape == (1, 32, 48, 3)
    assert segmenter.whole_ms > 0
    with pytest.raises(RbcedgeError, match=r"no times of layers from abacus\. Known: --engine litert, onnx, tensorrt"):
        profile(bundle, "abacus", engines, (32, 48), 1)


def test_one_operator_alone_gives_what_it_gives_in_the_network(bundle: bundles.Bundle) -> None:
    """The first convolution, cut out of the network, on the network's own input."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from rbcedge.bench.layers import _single

    g = graph(path(bundle, "segmenter"))
    operators = g.model.subgraphs[0].operators
    k = next(k for k, o in enumerate(operators) if g.kind(o) == "CONV_2D")
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    whole = Interpreter(
        model_path=str(path(bundle, "segmenter")),
        experimental_op_resolver_type=plain,
        experimental_preserve_all_tensors=True,
    )
    whole.allocate_tensors()
    entry = whole.get_input_details()[0]
    pixels = np.random.default_rng(0).integers(0, 256, entry["shape"]).astype(entry["dtype"])
    whole.set_tensor(entry["index"], pixels / np.float32(255) if entry["dtype"] == np.float32 else pixels)
    whole.invoke()
    alone = Interpreter(model_content=_single(g, operators[k]), experimental_op_resolver_type=plain)
    alone.allocate_tensors()
    alone.set_tensor(alone.get_input_details()[0]["index"], whole.get_tensor(int(operators[k].inputs[0])))
    alone.invoke()
    expected = whole.get_tensor(int(operators[k].outputs[0]))
    assert np.array_equal(alone.get_tensor(alone.get_output_details()[0]["index"]), expected)


def test_constants_behind_the_description_are_found(bundle: bundles.Bundle) -> None:
    """As ai-edge-quantizer writes them: at an offset in the file, outside of the flatbuffer."""
    g = graph(path(bundle, "segmenter"))
    weights = [int(o.inputs[1]) for o in g.model.subgraphs[0].operators if g.kind(o) == "CONV_2D"]
    assert all(g.constant(t) for t in weights)
    for tensor in weights:
        data = g.model.buffers[g.model.subgraphs[0].tensors[tensor].buffer].data
        bytes_each = 4 if g.model.subgraphs[0].tensors[tensor].type == g.schema.TensorType.FLOAT32 else 1
        assert len(data) == bytes_each * np.prod(g.shapes[tensor])


def test_the_projection_is_the_roofline() -> None:
    budget = script("jetson_budget")
    board = budget.Board("made up", "9", 2, 1.0, {"fp16": 1000, "int8": 2000}, 10.0, "nobody")
    assert board.peak("int8") == 4e12
    heavy, wide = budget.Piece(2e9, 10), budget.Piece(10, 1e7)
    assert budget.floor_s(board, heavy, "fp16") == pytest.approx(1e-3)
    assert budget.floor_s(board, heavy, "int8") == pytest.approx(0.5e-3)
    assert budget.floor_s(board, wide, "fp16") == pytest.approx(1e-3)
    assert budget.budget_s(board, wide, "fp16") == pytest.approx(1e-3 / budget.MEMORY + budget.LAUNCH)
    assert budget.limit(board, [heavy], "fp16") == "compute"
    assert budget.limit(board, [wide], "fp16") == "memory"
    assert budget.limit(board, [budget.Piece(0, 0)] * 9, "fp16") == "launches"
    assert [budget.buckets(n) for n in (0, 1, 32, 33, 512, 600)] == [[], [32], [32], [64], [512], [512, 128]]


def test_the_projection_says_so_and_orders_the_boards() -> None:
    budget = script("jetson_budget")
    text = budget.page([((640, 480), 75)], ("fp16", "int8"))
    assert text.startswith("# Jetson latency budget: a projection")
    assert "**Projected, not measured.**" in text
    work = budget.stages(bundles.load(bundles.default_folder(), check_files=False), (640, 480), 75, "fp16")
    times = [sum(budget.budget_s(b, p, "fp16") for ps in work.values() for p in ps) for b in budget.BOARDS]
    assert times[0] > times[1] > times[3] > times[4]
    # The vendor's own figures, where they are for the GPU alone: 20 dense TOPS; 67 and 170 sparse, twice the dense.
    dense = [b.peak("int8") / 1e12 for b in budget.BOARDS]
    assert [dense[0], 2 * dense[1], 2 * dense[3]] == pytest.approx([20, 67, 170], rel=0.03)
    assert budget.BOARDS[4].peak("fp16") / 1e12 == pytest.approx(258.5, rel=0.01)
    assert all(b.source in text for b in budget.BOARDS)
    kept = budget.network([Operation("CONV_2D", "a", 5, 1, 1, 1), Operation("ADD", "b", 0, 0, 2, 1)], "int8")
    assert kept == [budget.Piece(10.0, 3)]


def test_the_soak_judges_growth_and_drift() -> None:
    soak = script("soak")
    flat = [{"mb": 100.0, "p50": 2.0}] * 10
    assert soak.judge(flat, 0.2) == (0.0, 0.0, True)
    grown = [{"mb": 100.0 + k, "p50": 2.0} for k in range(10)]
    assert soak.judge(grown, 0.2)[2] is False
    slower = [{"mb": 100.0, "p50": 2.0 + 0.2 * k} for k in range(10)]
    assert soak.judge(slower, 0.2)[2] is False
    with pytest.raises(SystemExit):
        soak.judge(flat[:4], 0.2)


def test_the_soaks_stage_goes_round_and_rests() -> None:
    soak = script("soak")
    field = np.zeros((soak.FIELD[1], soak.FIELD[0], 3), np.uint8)
    whole = 4 * (soak.REST + soak.PAN - 1)
    frames = list(soak.Round(field, 2 * whole).frames())
    places = [p for p, _ in zip(soak.Round(field, 0).places(), range(2 * whole), strict=False)]
    assert len(frames) == 2 * whole
    assert places[:whole] == places[whole:]
    assert places[: soak.REST] == [(0, 0)] * soak.REST
    assert all(f.size == soak.SIZE for f in frames[:: whole // 7])


def test_the_moving_window_keeps_its_speed_and_stays_on_the_field() -> None:
    moving = script("moving_field")
    right, below = moving.FIELD[0] - moving.SIZE[0], moving.FIELD[1] - moving.SIZE[1]
    window = moving.Window(np.zeros((moving.FIELD[1], moving.FIELD[0], 3), np.uint8), 2.0)
    places = np.array([window.place(2.0 * k) for k in range((2 * right + below) // 2 + 1)])
    assert places.min() == 0
    assert (places.max(0) == (right, below)).all()
    assert (np.abs(np.diff(places, axis=0)).sum(1) == 2).all()
    frames = list(window.frames())
    assert len(frames) == len(places)
    assert {f.size for f in frames} == {moving.SIZE}
    # Without speed it never ends: the run loop says when it has seen enough.
    still = moving.Window(np.zeros((moving.FIELD[1], moving.FIELD[0], 3), np.uint8), 0.0).frames()
    assert [next(still).index for _ in range(4)] == [0, 1, 2, 3]


def made_run(engine: str, milliseconds: float) -> Run:
    stages = {"segment": (milliseconds,) * 9, "classify": (milliseconds,) * 9}
    loop = Loop((2 * milliseconds,) * 9, stages, (75,) * 9)
    networks = tuple(Network(role, "tflite", "int8", "", "") for role in bundles.ROLES)
    case = Case("sim", engine, "int8", 640, 480, 75, 2)
    return Run(case, networks, 3, 1, loop, None, None, None, Watched(), 1.0)


def test_memory_is_named_only_where_it_can_be_the_reason(bundle: bundles.Bundle) -> None:
    run = made_run("litert", 1.0)
    # 19 MB in a millisecond are 19 GB/s.
    segment, classify = traffic(run, bundle, 20e9, 2**20)
    assert segment.startswith("segment: 0.90 GMAC at 897 GMAC/s; memory-bound")
    assert classify.startswith("classify: 1.2")
    assert "memory-bound" not in traffic(run, bundle, 20e9, 2**30)[0]
    assert "memory-bound" not in traffic(run, bundle, 20e9, 0)[0]
    assert "memory-bound" not in traffic(run, bundle, 200e9, 2**20)[0]
    assert "memory-bound" not in traffic(made_run("tensorrt", 1.0), bundle, 20e9, 2**20)[0]
