"""LiteRT: cells are shared among threads, and no cell notices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbcedge import bundle as bundles
from rbcedge.engines.litert import LiteRTEngine
from rbcedge.engines.portions import portions
from rbcedge.errors import RbcedgeError
from tests.thread_check import no_thread_left

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True)


@given(n=st.integers(0, 300), lanes=st.integers(1, 9), sizes=SIZES)
def test_every_picture_is_in_one_portion(n: int, lanes: int, sizes: list[int]) -> None:
    dealt = portions(n, lanes, sizes)
    assert [row for p in dealt for row in range(p.start, p.start + p.rows)] == list(range(n))
    assert all(1 <= p.rows <= p.batch and p.batch in sizes for p in dealt)
    assert [p.batch for p in dealt] == sorted((p.batch for p in dealt), reverse=True)


@given(n=st.integers(1, 300), lanes=st.integers(1, 9))
def test_little_is_wasted_and_nobody_waits_long(n: int, lanes: int) -> None:
    dealt = portions(n, lanes, (1, 4, 16))
    assert sum(p.batch for p in dealt) <= n * 4 / 3
    # Taken one by one by whoever is free, as `infer` does.
    loads = [0] * lanes
    for p in dealt:
        loads[loads.index(min(loads))] += p.batch
    assert max(loads) - min(loads) <= 4


@pytest.fixture(scope="module")
def classifier() -> Path:
    bundle = bundles.load(bundles.default_folder())
    artefact = bundle.find("classifier", "tflite", ("int8",))
    assert artefact is not None
    return bundle.path(artefact)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_cell_gets_the_same_probabilities_in_any_company(classifier: Path, threads: int) -> None:
    """Bit for bit: alone, among few or many others, on both sides, on any thread, after any other call."""
    rng = np.random.default_rng(threads)
    cells = {side: rng.integers(0, 256, (70, side, side, 3), np.uint8) for side in (56, 80)}
    alone = LiteRTEngine(classifier, "int8")
    expected = {s: np.concatenate([alone.infer(c[k : k + 1]) for k in range(len(c))]) for s, c in cells.items()}
    assert all(len(np.unique(e, axis=0)) > 10 for e in expected.values()), "equal rows would prove nothing"
    with no_thread_left():
        engine = LiteRTEngine(classifier, "int8", threads)
        for n in (1, 70, 2, 13, 5, 64, 3, 0):
            for side in (80, 56):
                np.testing.assert_array_equal(engine.infer(cells[side][:n]), expected[side][:n])
        engine.close()
        engine.close()


def test_an_error_on_another_thread_is_not_lost(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LiteRTEngine(classifier, "int8", 2)
    cells = np.zeros((40, 56, 56, 3), np.uint8)
    whole = engine.infer(cells)
    calls = iter(range(100))

    def fails(*_: object) -> None:
        if next(calls) == 1:
            raise RbcedgeError("out of memory")

    with monkeypatch.context() as m:
        m.setattr("rbcedge.engines.litert._Instance.run", fails)
        with pytest.raises(RbcedgeError, match="out of memory"):
            engine.infer(cells)
    np.testing.assert_array_equal(engine.infer(cells), whole)
    engine.close()


def test_a_network_that_fixes_its_batch_inside_keeps_it(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    keras = tf.keras
    pictures = keras.Input(batch_shape=(4, 8, 8, 3))
    flat = keras.ops.reshape(keras.layers.Conv2D(2, 3, padding="same")(pictures), (4, 128))
    model = keras.Model(pictures, keras.layers.Dense(5, activation="softmax")(flat))
    path = tmp_path / "fixed.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    engine = LiteRTEngine(path, "fp32", 2)
    assert engine.input_shape == (4, 8, 8, 3)
    cells = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), np.uint8)
    padded = np.concatenate([cells, np.zeros((1, 8, 8, 3), np.uint8)]).astype(np.float32) / np.float32(255)
    expected = np.concatenate([np.asarray(model(padded[k : k + 4])) for k in (0, 4, 8)])[:11]
    np.testing.assert_allclose(engine.infer(cells), expected, atol=1e-5)
    engine.close()
