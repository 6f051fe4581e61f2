"""Every kernel against what the host pipeline does, on the CPU build and, where there is one, on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, replace

import cv2
import numpy as np
import pytest
from gpu_help import DEVICES, Ready, fetch, opened
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from real_pictures import DATA

from rbcedge.bundle import default_folder, load
from rbcedge.cells import components
from rbcedge.counting.places import shapes_of
from rbcedge.field import Field
from rbcedge.frame import Frame
from rbcedge.light import measure
from rbcedge.pipeline import plan
from rbcedge.pipeline.gpu.background import Background
from rbcedge.pipeline.gpu.finding import Finding, Result
from rbcedge.pipeline.gpu.measuring import Measuring
from rbcedge.pipeline.gpu.memory import Pool
from rbcedge.pipeline.gpu.resampling import axis, rule
from rbcedge.pipeline.illumination import Illumination, estimate
from rbcedge.simulator import Composition, Look, render_field

masks = arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 70)), elements=st.sampled_from([0, 1]))
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=DEVICES)
def ready(request: pytest.FixtureRequest) -> Iterator[Ready]:
    with opened(request.param) as r:
        yield r


def _pictures() -> list[np.ndarray]:
    composition = Composition(fractions={"NOR": 8, "TWO": 1}, density=45)
    made = [render_field(np.random.default_rng(5), 320, 240, look=Look(), composition=composition).pixels]
    rng = np.random.default_rng(1)
    made += [rng.integers(0, 256, (*s, 3), np.uint8) for s in ((1, 1), (3, 200), (97, 641), (240, 321), (320, 640))]
    for name in ("chula-rbc-12/Dataset/10.jpg", "chula-rbc-12/Dataset/105.jpg"):
        if (DATA / name).exists():
            made.append(cv2.imread(str(DATA / name)))
    return made


def _spiral(n: int) -> np.ndarray:
    """One arm, one pixel wide, all the way in."""
    m = np.zeros((n, n), np.uint8)
    x, y, dx, dy, reach = 0, 0, 1, 0, n - 1
    m[0, 0] = 1
    for turn in range(2 * n):
        for _ in range(reach):
            x, y = x + dx, y + dy
            m[y, x] = 1
        dx, dy = -dy, dx
        if turn and turn % 2 == 0:
            reach -= 2
        elif turn == 0:
            reach = n - 1
        if reach <= 0:
            break
    return m


def _known() -> dict[str, np.ndarray]:
    comb = np.zeros((67, 131), np.uint8)
    comb[-1], comb[:, ::2] = 1, 1
    bridges = np.zeros((64, 96), np.uint8)
    bridges[5:60, 3:40], bridges[5:60, 41:90], bridges[30, 40] = 1, 1, 1
    corners = np.indices((50, 70)).sum(0).astype(np.uint8) % 2
    rings = np.zeros((99, 99), np.uint8)
    for r in range(0, 48, 4):
        cv2.rectangle(rings, (r, r), (98 - r, 98 - r), 1, 1)
    dots = np.zeros((530, 530), np.uint8)
    dots[::2, ::2] = 1
    return {
        "spiral": _spiral(61),
        "background spiral": 1 - _spiral(61),
        "comb": comb,
        "comb upside down": np.ascontiguousarray(comb[::-1]),
        "one-pixel bridge": bridges,
        "chessboard": corners,
        "rings in rings": rings,
        "70,225 dots": dots,
        "holes touching at corners": 1 - np.pad(corners[:20, :20], 3),
        "full": np.ones((40, 65), np.uint8),
        "empty": np.zeros((40, 65), np.uint8),
        "one pixel": np.ones((1, 1), np.uint8),
        "one row": np.array([[1, 0, 1, 1, 0] * 20], np.uint8),
        "one column": np.array([[1, 0, 1, 1, 0] * 20], np.uint8).T.copy(),
    }


def _find(ready: Ready, probability: np.ndarray, size: tuple[int, int], threshold: float, least: int) -> tuple:
    h, w = probability.shape
    finding = Finding(ready.device, ready.stream, ready.kernels, size, (w, h), w, threshold, least)
    pool = Pool(ready.device, ready.stream)
    try:
        result = Result.allocate(pool, size, least)
        finding.begin()
        finding.launch(pool.table(probability), result)
        ready.stream.synchronize()
        found = result.read(size, 8)
        cells = found.cells
        assert found.foreign == 0
        bits = pool.mapped(-(-size[0] // 8) * size[1])
        row = -(-size[0] // 8)
        ready.kernels["pack_mask"].launch(ready.stream, row * size[1], result.labels, size[0], bits)
        labels = fetch(ready, result.labels, np.int32, (size[1], size[0]))
        unpacked = np.unpackbits(bits.array.reshape(size[1], row), axis=1, count=size[0])
        np.testing.assert_array_equal(unpacked, labels > 0)
        field = Field(Frame(0, 0.0, np.zeros((*size[::-1], 3), np.uint8), ""), 1.0, unpacked, labels, cells)
        np.testing.assert_array_equal(found.grids, shapes_of(field).grids)
        return labels, cells
    finally:
        pool.free()
        finding.free()


def _same(found: tuple, expected: tuple) -> None:
    np.testing.assert_array_equal(found[0], expected[0])
    for name in ("boxes", "areas", "centroids", "on_border"):
        np.testing.assert_array_equal(getattr(found[1], name), getattr(expected[1], name), name)


@pytest.mark.parametrize("name", _known())
@pytest.mark.parametrize("least", [1, 9])
def test_components_of_known_masks(ready: Ready, name: str, least: int) -> None:
    mask = _known()[name]
    found = _find(ready, mask.astype(np.float32), mask.shape[::-1], 0.5, least)
    _same(found, components(mask, 8, least))
    if name.startswith("70,225") and least == 1:
        assert len(found[1]) == 70225


@quick
@given(mask=masks, least=st.integers(1, 12))
def test_components_of_any_mask(ready: Ready, mask: np.ndarray, least: int) -> None:
    _same(_find(ready, mask.astype(np.float32), mask.shape[::-1], 0.5, least), components(mask, 8, least))


@quick
@given(
    seed=st.integers(0, 999), size=st.tuples(st.integers(1, 90), st.integers(1, 90)), blur=st.sampled_from([0, 1, 3])
)
def test_probabilities_are_enlarged_as_on_the_host(ready: Ready, seed: int, size: tuple[int, int], blur: int) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.random(tuple(rng.integers(1, 60, 2))).astype(np.float32)
    if blur:
        probability = cv2.GaussianBlur(probability, (0, 0), blur)
    full = cv2.resize(probability, size, interpolation=cv2.INTER_LINEAR)
    # Builds of OpenCV differ in the last digits (by up to 2e-5): the threshold lies where no pixel is near to it.
    levels = np.sort(full.ravel())[full.size // 3 : full.size * 2 // 3 + 2]
    gaps = np.diff(levels)
    assume(len(gaps) and gaps.max() > 1e-4)
    threshold = float(levels[gaps.argmax()] + gaps.max() / 2)
    _same(
        _find(ready, probability, size, threshold, 3),
        components((full >= np.float32(threshold)).view(np.uint8), 8, 3),
    )


def test_backgrounds_are_those_of_the_host(ready: Ready) -> None:
    for pixels in _pictures():
        background = Background(ready.device, ready.stream, ready.kernels, pixels.shape[1::-1])
        pool = Pool(ready.device, ready.stream)
        background.launch(pool.table(pixels).address)
        ready.stream.synchronize()
        # Measured: equal, but for 1.5e-5 grey levels in one picture of 31 px.
        np.testing.assert_allclose(background.read().background, estimate(pixels).background, rtol=0, atol=1e-4)
        background.free()
        pool.free()


@pytest.mark.parametrize("as_float", [False, True])
@pytest.mark.parametrize("factor", [0.5, 0.25, 0.43, 1.0, 1.7, 2.0])
def test_pictures_are_normalised_as_on_the_host(ready: Ready, factor: float, as_float: bool) -> None:
    worst = changed = values = 0
    for pixels in _pictures():
        h, w = pixels.shape[:2]
        size = max(1, round(w * factor)), max(1, round(h * factor))
        right, below = plan.padding(size)
        shown, green = _normalise(ready, pixels, size, factor < 1, as_float)
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        small = estimate(pixels).apply(cv2.resize(pixels, size, interpolation=method))
        expected = cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_REPLICATE)[..., ::-1]
        if as_float:
            np.testing.assert_array_equal(shown, np.rint(shown * 255).astype(np.uint8) * np.float32(1 / 255))
            shown = np.rint(shown * 255)
        difference = abs(shown.astype(int) - expected)
        np.testing.assert_array_equal(green, shown[: size[1], : size[0], 1])
        worst, changed, values = max(worst, difference.max()), changed + (difference > 0).sum(), values + shown.size
    # A last digit of the flat field may turn the rounding of a grey level.
    assert worst <= 1
    assert changed <= 1e-4 * values


def _normalise(ready: Ready, pixels: np.ndarray, size: tuple[int, int], shrink: bool, as_float: bool) -> tuple:
    from rbcedge.pipeline.gpu.segmenting import Segmenting

    class Idle:
        input_shape = (-1, -1, -1, 3)
        input_dtype = np.dtype(np.float32 if as_float else np.uint8)

        def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
            return (*shape[:3], 1)

    background = Background(ready.device, ready.stream, ready.kernels, pixels.shape[1::-1])
    pool = Pool(ready.device, ready.stream)
    picture = pool.table(pixels).address
    step = Segmenting(
        ready.device, ready.stream, ready.kernels, background, Idle(), pixels.shape[1::-1], size, shrink, 0.5
    )
    try:
        background.launch(picture)
        step.normalise(picture)
        shape = (size[1] + plan.padding(size)[1], size[0] + plan.padding(size)[0], 3)
        shown = fetch(ready, step._input, Idle.input_dtype.type, shape)
        return shown, fetch(ready, step._green, np.uint8, (size[1], size[0]))
    finally:
        step.free()
        background.free()
        pool.free()


@quick
@given(seed=st.integers(0, 999))
def test_foreign_pixels_are_counted_as_on_the_host(ready: Ready, seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, w = (int(v) for v in rng.integers(1, 80, 2))
    stride = w + int(rng.integers(0, 16))
    probability = cv2.GaussianBlur(rng.random((h, stride)).astype(np.float32), (0, 0), 2)
    threshold = float(np.quantile(probability, 0.9))
    green = rng.integers(100, 200, (h, w)).astype(np.uint8)
    near = cv2.dilate((probability[:, :w] >= np.float32(threshold)).astype(np.uint8), np.ones((5, 5), np.uint8))
    pool = Pool(ready.device, ready.stream)
    count = pool.table(np.zeros(1, np.int32))
    ready.kernels["count_foreign"].launch(
        ready.stream, -(-w // 32) * h, pool.table(probability), stride, threshold, pool.table(green), 146, w,
        h, count,
    )  # fmt: skip
    assert fetch(ready, count, np.int32, (1,))[0] == ((green < plan.STAINED) & (near == 0)).sum()
    pool.free()


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_probabilities_are_tempered_as_on_the_host(ready: Ready, temperature: float) -> None:
    raw = np.random.default_rng(0).random((41, 8)).astype(np.float32) ** 4
    raw[3] = [0, 0, 1, 0, 0, 0, 0, 0]
    bundle = replace(load(default_folder(), check_files=False), temperature=temperature)
    pool = Pool(ready.device, ready.stream)
    out = pool.memory(raw.nbytes)
    ready.kernels["temper"].launch(ready.stream, 41, pool.table(raw), 8, float(np.float32(1 / temperature)), out)
    found = fetch(ready, out, np.float32, raw.shape)
    np.testing.assert_allclose(found, plan.temper(bundle, raw), rtol=2e-6)
    pool.free()


@pytest.mark.parametrize(
    ("source", "target", "shrink"), [(640, 320, True), (640, 311, True), (99, 33, True), (47, 80, False), (5, 5, True)]
)
def test_weights_of_an_axis_sum_to_one(source: int, target: int, shrink: bool) -> None:
    how = rule((source, source), (target, target), shrink)
    a = axis(source, target, how, horizontal=True)
    sums = np.add.reduceat(a.weight, a.at[target:-1])
    np.testing.assert_allclose(sums, 1 if shrink else 2048, rtol=1e-6)
    starts, counts = a.at[:target], np.diff(a.at[target:])
    assert (starts >= 0).all()
    assert (np.diff(starts) >= 0).all()
    assert (starts + counts <= source + (0 if shrink else 1)).all()


def test_a_flat_background_leaves_pixels_in_proportion(ready: Ready) -> None:
    grey = np.full((64, 96, 3), 180, np.uint8)
    shown, _ = _normalise(ready, grey, (48, 32), True, False)
    assert (shown == 235).all()
    assert isinstance(estimate(grey), Illumination)


def _light_as_on_the_host(ready: Ready, pixels: np.ndarray, labels: np.ndarray, scale: float) -> None:
    pool = Pool(ready.device, ready.stream)
    result = Result(pool.table(labels), pool.memory(1), pool.mapped(1))
    measuring = pool.own(Measuring(ready.device, ready.stream, ready.kernels, labels.shape[::-1], scale))
    measuring.launch(pool.table(pixels).address, result)
    ready.stream.synchronize()
    # Everything that decides is a whole number: not nearly equal, but equal.
    mask = np.where(labels > 0, np.uint8(255), np.uint8(0))
    np.testing.assert_array_equal(
        astuple(measuring.read(pixels)), astuple(measure(pixels, mask, scale)), str((labels.shape, scale))
    )
    pool.free()


def _discs(rng: np.random.Generator, size: tuple[int, int], blur: float) -> tuple[np.ndarray, np.ndarray]:
    w, h = size
    labels = np.zeros((h, w), np.int32)
    for k in range(int(rng.integers(0, max(2, w * h // 900)))):
        at = int(rng.integers(0, w)), int(rng.integers(0, h))
        cv2.circle(labels, at, int(rng.integers(2, 20)), k + 1, -1)
    noise = rng.integers(0, 256, (h, w, 3), np.uint8)
    noise = cv2.GaussianBlur(noise, (0, 0), blur) if blur else noise
    return np.clip(noise.astype(int) - 60 * (labels[..., None] > 0) + 60, 0, 255).astype(np.uint8), labels


@quick
@given(
    seed=st.integers(0, 9999),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    scale=st.sampled_from([0.25, 0.3, 0.5, 0.6, 0.74, 0.8, 1.0, 1.3, 2.5]),
    blur=st.sampled_from([0, 2]),
)
def test_light_and_edges_are_measured_as_on_the_host(
    ready: Ready, seed: int, size: tuple[int, int], scale: float, blur: int
) -> None:
    pixels, labels = _discs(np.random.default_rng(seed), size, blur)
    _light_as_on_the_host(ready, pixels, labels, scale)


@pytest.mark.parametrize(("size", "scale"), [((1300, 1040), 1.0), ((1300, 1040), 0.5), ((1200, 300), 0.37)])
def test_large_pictures_are_measured_at_their_centre(ready: Ready, size: tuple[int, int], scale: float) -> None:
    pixels, labels = _discs(np.random.default_rng(1), size, 2)
    _light_as_on_the_host(ready, pixels, labels, scale)
    _light_as_on_the_host(ready, pixels, np.ones_like(labels), scale)
    _light_as_on_the_host(ready, pixels, np.zeros_like(labels), scale)
