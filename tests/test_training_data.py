"""Readers, teacher and lessons: what the networks learn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rbcedge.training.classifier import BALANCE, Draw, batches
from rbcedge.training.crops import RIM, Cut, Example, centred, cut, fits, overlap, plain, present
from rbcedge.training.datasets import chula
from rbcedge.training.export import final_layer, labels, prior
from rbcedge.training.lessons import CODES, classes_of, keep_split, load, prepare_simulated
from rbcedge.training.second_opinion import LABEL, advised, named
from rbcedge.training.segmenter import sample, target
from rbcedge.training.teacher import part, teach, trust
from real_pictures import DATA

from rbcedge.errors import RbcedgeError
from rbcedge.simulator import Composition, Look, render_field

CHULA = DATA / "chula-rbc-12"


def _tree(folder: Path, numbers: range, label: str = "10 20 0\n30 40 8\n") -> Path:
    (folder / "Dataset").mkdir(parents=True)
    (folder / "Label").mkdir()
    for n in numbers:
        cv2.imwrite(str(folder / "Dataset" / f"{n}.jpg"), np.full((48, 64, 3), 200, np.uint8))
        (folder / "Label" / f"{n}.txt").write_text(label)
    return folder


def test_chula_is_read_in_number_order(tmp_path: Path) -> None:
    fields = chula.read(_tree(tmp_path, range(1, 13)))
    assert [f.number for f in fields] == list(range(1, 13))
    np.testing.assert_array_equal(fields[0].points, [[10, 20], [30, 40]])
    assert [chula.TO_PAPER[int(t)] for t in fields[0].types] == ["NOR", "BUR"]


def test_a_field_without_labels_has_no_points(tmp_path: Path) -> None:
    folder = _tree(tmp_path, range(1, 3))
    (folder / "Label" / "2.txt").unlink()
    assert len(chula.read(folder)[1].points) == 0


@pytest.mark.parametrize("line", ["1 2", "a b c", "1 2 13"])
def test_a_bad_label_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(RbcedgeError, match=r"1\.txt:2: "):
        chula.read(_tree(tmp_path, range(1, 2), f"1 2 3\n{line}\n"))


def test_a_folder_that_is_not_the_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RbcedgeError, match=r"no Dataset/NUMBER\.jpg"):
        chula.read(tmp_path)


def test_split_keeps_neighbours_together(tmp_path: Path) -> None:
    folder = _tree(tmp_path, range(0, 20))
    for start in range(30, 300, 30):
        _more(folder, range(start, start + 20))
    fields = chula.read(folder)
    training, held_out = chula.split(fields, seed=1)
    assert len(training) + len(held_out) == len(fields)
    assert 0.1 < len(held_out) / len(fields) < 0.3
    assert not {f.number // 30 for f in training} & {f.number // 30 for f in held_out}
    again = chula.split(fields, seed=1)[1]
    assert [f.number for f in again] == [f.number for f in held_out]


def test_another_split_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    fields = chula.read(_tree(tmp_path / "set", range(1, 4)))
    keep_split(tmp_path / "work", 0, fields[:1])
    keep_split(tmp_path / "work", 0, fields[:1])
    with pytest.raises(RbcedgeError, match="another split"):
        keep_split(tmp_path / "work", 1, fields[1:])


def _more(folder: Path, numbers: range) -> None:
    for n in numbers:
        (folder / "Dataset" / f"{n}.jpg").write_bytes((folder / "Dataset" / "0.jpg").read_bytes())
        (folder / "Label" / f"{n}.txt").write_text("1 2 0\n")


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_the_teacher_is_right_on_an_ordinary_field() -> None:
    view = render_field(np.random.default_rng(2), 640, 480, look=Look(), composition=Composition(density=45))
    lesson = teach(view.pixels)
    sure = ~lesson.ignore
    assert _iou(lesson.labels[sure] > 0, view.mask[sure]) > 0.9
    assert trust(lesson, np.zeros((0, 2), np.int32)) == ""


def test_the_teacher_is_not_trusted_on_another_magnification() -> None:
    view = render_field(
        np.random.default_rng(2), 640, 480, look=Look(cell_px=70), composition=Composition(leucocytes=0, clumps=0)
    )
    assert trust(teach(view.pixels), np.zeros((0, 2), np.int32)) != ""


def test_marks_that_the_teacher_missed_make_it_untrustworthy() -> None:
    view = render_field(np.random.default_rng(2), 640, 480, look=Look(), composition=Composition(density=45))
    lesson = teach(view.pixels)
    ys, xs = np.nonzero(cv2.erode((lesson.labels == 0).astype(np.uint8), np.ones((9, 9), np.uint8)))
    points = np.stack([xs[::2000], ys[::2000]], 1).astype(np.int32)
    assert "marked cells" in trust(lesson, points)


def _discs(gap: int) -> np.ndarray:
    mask = np.zeros((80, 160), np.uint8)
    cv2.circle(mask, (50, 40), 19, 1, -1)
    cv2.circle(mask, (50 + 38 + gap, 40), 19, 1, -1)
    return mask


@pytest.mark.parametrize(("gap", "parts"), [(0, 2), (-3, 2), (-16, 1), (-24, 1)])
def test_touching_cells_are_parted_and_overlaps_are_not(gap: int, parts: int) -> None:
    mask = _discs(gap)
    assert cv2.connectedComponents(mask)[0] == 2
    cut_mask = part(mask, 38.0)
    assert cv2.connectedComponents(cut_mask)[0] == parts + 1
    assert (mask - cut_mask).sum() < 0.06 * mask.sum()


def test_marks_name_instances() -> None:
    labels = np.zeros((100, 300), np.int32)
    for i in range(5):
        labels[20:60, 10 + 55 * i : 50 + 55 * i] = i + 1
    points = np.array([[30, 40], [80, 40], [90, 40], [135, 30], [140, 40], [145, 50]], np.int32)
    field = chula.LabelledField(1, Path("x"), points, np.array([6, 0, 0, 0, 0, 0], np.int32))
    assert [CODES[c] if c >= 0 else "?" for c in classes_of(labels, field)] == ["OVA", "TWO", "THR", "?", "?"]


def test_the_target_parts_cells_and_weighs_the_gap() -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[4:16, 2:10], labels[4:16, 10:18] = 1, 2
    cell, weight = target(labels)
    assert cv2.connectedComponents(cell.astype(np.uint8), connectivity=8)[0] == 3
    assert weight[10, 9] > weight[10, 5] == 1
    assert cell[10, 5] == 1


def test_samples_follow_their_labels() -> None:
    view = render_field(np.random.default_rng(4), 320, 240, look=Look(), composition=Composition(density=50))
    ids = np.unique(view.labels)
    lesson = {
        "pixels": np.repeat(np.where(view.mask, 60, 220).astype(np.uint8)[..., None], 3, 2),
        "labels": np.searchsorted(ids, view.labels).astype(np.int16),
        "ignore": np.zeros(view.mask.shape, bool),
    }
    pixels, truth = sample(np.random.default_rng(0), lesson, 96, 0.5)
    assert pixels.shape == (96, 96, 3)
    inside = cv2.erode(truth[..., 0], np.ones((3, 3))) > 0
    outside = cv2.dilate(truth[..., 0], np.ones((5, 5))) == 0
    assert np.median(pixels[inside]) < np.median(pixels[outside]) - 60


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> list[Cut]:
    folder = tmp_path_factory.mktemp("lessons")
    prepare_simulated(2, folder, seed=3, size=(400, 300))
    return cut(load(sorted(folder.glob("*.npz"))))


def test_cuts_hold_one_whole_cell_each(cuts: list[Cut]) -> None:
    assert len(cuts) > 10
    for c in cuts:
        assert c.own.any()
        assert not (c.own[0].any() or c.own[-1].any()) or CODES[c.code] in ("TWO", "THR", "OTH")
        assert cv2.connectedComponents(c.own, connectivity=8)[0] == 2


def test_made_up_overlaps_are_one_piece_and_darker_where_they_overlap(cuts: list[Cut]) -> None:
    singles = [c for c in cuts if CODES[c.code] in ("NOR", "OVA")]
    rng = np.random.default_rng(0)
    pieces = []
    for _ in range(12):
        a, b = (singles[int(i)] for i in rng.choice(len(singles), 2, replace=False))
        both = overlap(rng, [a, b], CODES.index("TWO"))
        assert both.own.sum() < 1.3 * (a.own.sum() + b.own.sum())
        assert both.own.sum() > 0.7 * max(a.own.sum(), b.own.sum())
        pieces.append(cv2.connectedComponents(both.own, connectivity=8)[0] - 1)
    assert np.mean(np.array(pieces) == 1) > 0.8


def test_presented_crops_are_centred_on_black(cuts: list[Cut]) -> None:
    rng = np.random.default_rng(1)
    for c in cuts[:20]:
        # A neighbour hides part of the rim on its side.
        crop = present(rng, replace(c, others=np.zeros_like(c.others)))
        assert crop.shape == (80, 80, 3)
        x, y, w, h = cv2.boundingRect(crop.max(axis=2))
        # Moved by up to 3 px, and half a pixel where the box is odd.
        assert abs(x + w / 2 - 40) <= 3.5
        assert abs(y + h / 2 - 40) <= 3.5


def test_fits_says_whether_the_small_square_holds_all() -> None:
    own = np.zeros((112, 112), np.uint8)
    own[40:70, 33:83] = 1
    others = np.zeros_like(own)
    pixels = np.full((112, 112, 3), 9, np.uint8)
    assert fits(centred(pixels, own, others, 80), 56)
    own[50, 32] = 1
    assert not fits(centred(pixels, own, others, 80), 56)


def test_a_crop_shows_its_rim_but_no_other_cell() -> None:
    own, others = np.zeros((2, 112, 112), np.uint8)
    own[40:70, 40:70] = 1
    others[40:70, 72:90] = 1
    crop = centred(np.full((112, 112, 3), 9, np.uint8), own, others, 80)[..., 0]
    # The box is centred on px 55, which is the crop's px 40.
    assert crop[40, 40 - 15 - RIM] == 9
    assert crop[40, 40 - 16 - RIM] == 0
    assert crop[40, 56] == 9
    assert crop[40, 57] == 0


def test_batches_come_in_both_sizes_with_every_class(cuts: list[Cut]) -> None:
    examples = plain(cuts, len(CODES))
    stream = batches(Draw(examples, examples), seed=0, size=16, small=56)
    shapes, seen = set(), set()
    for _ in range(16):
        x, y = next(stream)
        assert x.dtype == np.float32
        assert x.min() >= 0
        assert x.max() <= 1
        shapes.add(x.shape)
        np.testing.assert_array_equal(y.sum(axis=1), 1)
        seen |= set(y.argmax(axis=1).tolist())
    assert shapes == {(16, 56, 56, 3), (16, 80, 80, 3)}
    assert len(seen) >= 6


def test_only_cells_that_nobody_marked_are_cut_where_they_are_asked_for(cuts: list[Cut], tmp_path: Path) -> None:
    prepare_simulated(1, tmp_path)
    (lesson,) = load(tmp_path.glob("*.npz"))
    everything = cut([lesson])
    lesson["classes"] = np.where(np.arange(len(lesson["classes"])) % 2, lesson["classes"], -1).astype(np.int8)
    marked, unmarked = cut([lesson]), cut([lesson], labelled=False)
    assert len(marked) + len(unmarked) == len(everything)
    assert {c.code for c in unmarked} == {-1}
    assert all(c.code >= 0 for c in marked)


def test_a_second_opinion_softens_labels_and_names_only_what_it_is_sure_of(cuts: list[Cut]) -> None:
    guess = np.full((2, len(CODES)), 0.05, np.float32)
    guess[0, 3], guess[1, 5] = 0.65, 0.4
    cells = [replace(cuts[0], code=2), replace(cuts[1], code=2)]
    first, second = advised(cells, guess)
    assert first.cell.code == second.cell.code == 2
    assert first.target[2] == pytest.approx(LABEL + (1 - LABEL) * 0.05)
    assert first.target[3] == pytest.approx((1 - LABEL) * 0.65)
    (sure,) = named([replace(c, code=-1) for c in cells], guess)
    assert sure.cell.code == 3
    np.testing.assert_array_equal(sure.target, guess[0])
    assert sure.cell.pixels is cells[0].pixels


def test_unmarked_cells_are_drawn_beside_marked_ones(cuts: list[Cut]) -> None:
    marked = plain(cuts, len(CODES))
    doubt = np.full(len(CODES), 0.125, np.float32)
    draw = Draw(marked, [], [Example(c, doubt) for c in cuts])
    rng = np.random.default_rng(0)
    drawn = [draw.one(rng)[1] for _ in range(200)]
    assert 0.1 < np.mean([t.max() < 0.5 for t in drawn]) < 0.6


@pytest.mark.skipif(not CHULA.exists(), reason="Chula-RBC-12 is not here")
def test_the_teacher_finds_nearly_all_marked_cells_of_real_fields() -> None:
    fields = [f for f in chula.read(CHULA) if len(f.points)][10:200:24]
    found = total = 0
    for field in fields:
        lesson = teach(cv2.imread(str(field.picture)))
        near = cv2.dilate((lesson.labels > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
        x, y = np.clip(field.points[:, 0], 0, 639), np.clip(field.points[:, 1], 0, 479)
        sure = ~lesson.ignore[y, x]
        found += int((near[y, x][sure] > 0).sum())
        total += int(sure.sum())
    assert found / total > 0.95


def test_export_takes_the_drawing_back_and_orders_the_outputs() -> None:
    empty = np.zeros((1, 1), np.uint8)
    counts = {"NOR": 1000, "OVA": 400, "BUR": 100, "TEA": 100, "FRA": 100, "OTH": 300, "TWO": 100, "THR": 60}
    cells = [Cut(empty, empty, empty, CODES.index(c), 0) for c, n in counts.items() for _ in range(n)]
    shift = prior(cells)
    drawn = np.array([counts[c] for c in CODES]) ** BALANCE
    odds = drawn * np.exp(shift)
    np.testing.assert_allclose(odds / odds.sum(), np.array([counts[c] for c in CODES]) / len(cells), rtol=1e-4)
    kernel, bias = np.arange(16, dtype=np.float32).reshape(2, 8), np.zeros(8, np.float32)
    body, new_kernel, new_bias = final_layer([np.ones(3, np.float32), kernel, bias], shift)
    assert body.shape == (3,)
    for k, label in enumerate(labels()):
        old = CODES.index(label.code)
        np.testing.assert_array_equal(new_kernel[:, k], kernel[:, old])
        assert new_bias[k] == shift[old]
