"""Readers of data sets, on small trees in exactly their layouts."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import training_trees as trees
from rbcedge.training.datasets import bccd, boxes, elsafty, folders, pictures, reading, simulated
from rbcedge.training.datasets.cellset import CellSet, natural
from rbcedge.training.datasets.scanners import SCANNER_OF, TABLE_2, TEST_SLIDES

from rbcedge.errors import RbcedgeError, UsageError


def test_the_three_trees_are_read_as_one_set(tmp_path: Path) -> None:
    s = elsafty.read(trees.elsafty(tmp_path, slides=(1, 14), each=2))
    assert s.codes == trees.CODES
    assert s.counts() == {"NOR": 4, "TEA": 4, "TWO": 4}
    assert s.slides() == ("1", "14")
    assert s.scanners() == {"1": "1", "14": "3"}
    assert any("Table 2" in note for note in s.notes)
    assert not s.problems
    c = s.cells[0]
    assert c.id.startswith("01_rounded_rbcs/Slide 1 (1,")
    assert c.mask is not None
    assert c.mask.parts[-3:-1] == ("masks", "01_rounded_rbcs")
    assert c.segmented is not None
    assert c.picture.parent.parent.name == "cropped images"


def test_the_sets_own_scanners_decide(tmp_path: Path) -> None:
    trees.elsafty(tmp_path, slides=(1, 14), each=1)
    (tmp_path / "scanners.json").write_text('{"14": "new"}')
    s = elsafty.read(tmp_path)
    assert s.scanners() == {"14": "new"}
    assert not any("Table 2" in note for note in s.notes)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_trees_may_differ_in_their_file_type(tmp_path: Path, suffix: str) -> None:
    s = elsafty.read(trees.elsafty(tmp_path, slides=(1, 2), each=2, suffix=suffix))
    assert all(c.mask is not None and c.picture.suffix == suffix and c.mask.suffix == ".png" for c in s.cells)


def test_class_folders_may_stand_above_the_trees(tmp_path: Path) -> None:
    trees.elsafty(tmp_path / "a", slides=(1, 2), each=1)
    for path in sorted((tmp_path / "a").rglob("*.png")):
        tree, name = path.parent.parent.name, path.parent.name
        new = tmp_path / "b" / name / tree / path.name
        new.parent.mkdir(parents=True, exist_ok=True)
        path.replace(new)
    (tmp_path / "a" / "class_map.json").replace(tmp_path / "b" / "class_map.json")
    s = elsafty.read(tmp_path / "b")
    assert len(s.cells) == 6
    assert all(c.mask and c.segmented for c in s.cells)


@pytest.mark.parametrize("above", ["RBC images", "crops and masks"])
def test_a_folder_above_the_trees_does_not_decide(tmp_path: Path, above: str) -> None:
    trees.elsafty(tmp_path / above, slides=(1, 2), each=1)
    (tmp_path / above / "class_map.json").replace(tmp_path / "class_map.json")
    s = elsafty.read(tmp_path)
    assert len(s.cells) == 6
    assert {c.picture.parent.parent.name for c in s.cells} == {"cropped images"}
    assert all(c.mask is not None and c.mask.parent.parent.name == "masks" for c in s.cells)
    assert all(c.segmented is not None for c in s.cells)


@pytest.mark.parametrize(("xywh", "meaning"), [(False, "x, y, x, y"), (True, "x, y, w, h")])
def test_the_meaning_of_the_box_numbers_is_found_out(tmp_path: Path, xywh: bool, meaning: str) -> None:
    s = elsafty.read(trees.elsafty(tmp_path, xywh=xywh))
    assert any(meaning in note for note in s.notes)


def test_box_numbers_that_fit_nothing_are_said_so() -> None:
    numbers = np.array([[900, 900, 900, 900]] * 10)
    found = boxes.detect(numbers, 80)
    assert found.meaning is None
    assert "not used" in found.text()


def test_the_example_of_the_published_names_is_two_corners() -> None:
    found = boxes.detect(np.array([[93, 472, 116, 497]]), 80)
    assert found.meaning == "xyxy"
    np.testing.assert_array_equal(boxes.as_xywh(np.array([[93, 472, 116, 497]]), "xyxy"), [[93, 472, 23, 25]])
    # Whether x or y stands first, only a mask can tell.
    assert found.also == ("yxyx",)
    sized = boxes.detect(np.array([[93, 472, 116, 510]]), 80, np.array([[38, 23]]))
    assert (sized.meaning, sized.also) == ("yxyx", ())


def test_every_odd_file_is_named(tmp_path: Path) -> None:
    trees.elsafty(tmp_path, slides=(1, 2), each=2)
    crops = tmp_path / "cropped images" / "01_rounded_rbcs"
    first, second, *_ = sorted(crops.iterdir())
    (tmp_path / "masks" / "01_rounded_rbcs" / first.name).unlink()
    (crops / "holiday.png").write_bytes(second.read_bytes())
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "masks" / "01_rounded_rbcs" / "Slide 9 (1,1,1,9,9).png").write_bytes(second.read_bytes())
    twin = tmp_path / "cropped images" / "03_teardrops" / second.name
    twin.write_bytes(second.read_bytes())
    s = elsafty.read(tmp_path)
    text = "\n".join(s.problems)
    for part in (
        "no mask of this name",
        "holiday.png",
        "notes.txt: not a picture",
        "Slide 9",
        "one cell in two classes",
    ):
        assert part in text
    assert len(s.cells) == 12 - 1  # the cell in two classes is left out of both
    assert second.stem not in {c.id.split("/")[1] for c in s.cells}


def test_a_class_map_that_names_an_unknown_folder_is_refused(tmp_path: Path) -> None:
    trees.elsafty(tmp_path / "d", slides=(1, 2), each=1)
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"folders": {"01_rounded*": "NOR", "10_sickle_cells": "SIC"}}))
    with pytest.raises(RbcedgeError, match=r"10_sickle_cells.*Folders there: 01_rounded_rbcs"):
        elsafty.read(tmp_path / "d", path)


def test_a_replaced_class_map_decides(tmp_path: Path) -> None:
    trees.elsafty(tmp_path / "d", slides=(1, 2), each=1)
    path = tmp_path / "map.json"
    path.write_text(
        json.dumps({"folders": {"*tear*": "DROP", "*two*": "", "*round*": "NOR"}, "codes": ["DROP", "NOR"]})
    )
    s = elsafty.read(tmp_path / "d", path)
    assert s.codes == ("DROP", "NOR")
    assert s.counts() == {"DROP": 2, "NOR": 2}


@pytest.mark.parametrize(
    ("text", "what"),
    [("{", "no JSON"), ('{"folders": []}', "expected"), ('{"folders": {"a": "x y"}}', "plain words")],
)
def test_a_damaged_class_map_is_refused(tmp_path: Path, text: str, what: str) -> None:
    trees.elsafty(tmp_path / "d", slides=(1, 2), each=1)
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(RbcedgeError, match=what):
        elsafty.read(tmp_path / "d", path)


def test_the_shipped_map_knows_the_nine_folders(tmp_path: Path) -> None:
    names = dict.fromkeys(
        ("01_rounded_rbcs", "02_ovalocytes", "03_teardrops", "04_burr_cells", "05_fragmented_rbcs", "06_angled_rbcs",
         "07_two_overlapping_cells", "08_three_overlapping_cells", "09_borderline_ovalocytes"), 5,
    )  # fmt: skip
    s = elsafty.read(trees.elsafty(tmp_path, slides=(1, 2), each=1, folders=names, class_map=False))
    assert s.counts() == dict.fromkeys(("NOR", "OVA", "TEA", "FRA", "BUR", "OTH", "TWO", "THR"), 2)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RbcedgeError, match="no picture"):
        elsafty.read(tmp_path)
    with pytest.raises(RbcedgeError, match="no such folder"):
        elsafty.read(tmp_path / "x")


def test_names_that_say_no_slide_are_refused(tmp_path: Path) -> None:
    trees.folders(tmp_path, ["rounded", "teardrop"])
    with pytest.raises(RbcedgeError, match="named like 'Slide 1"):
        elsafty.read(tmp_path)


def test_voc_boxes_are_read(tmp_path: Path) -> None:
    s = bccd.read(trees.bccd(tmp_path), slide_pattern="^(?P<slide>P[0-9]+)_")
    assert s.counts() == {"RBC": 1, "WBC": 1, "PLT": 1}
    assert {c.box for c in s.cells} == {(10, 20, 40, 42), (70, 10, 80, 90), (5, 90, 15, 14)}
    assert s.slides() == ("P7",)
    assert all(c.slide is None for c in bccd.read(tmp_path).cells)


def test_damaged_annotations_are_named(tmp_path: Path) -> None:
    trees.bccd(tmp_path)
    (tmp_path / "Annotations" / "bad.xml").write_text("<annotation>")
    (tmp_path / "Annotations" / "lost.xml").write_text("<annotation/>")
    s = bccd.read(tmp_path)
    assert len(s.cells) == 3
    assert any("bad.xml: not a VOC annotation" in p for p in s.problems)
    assert any("lost.xml: no picture" in p for p in s.problems)


def test_plain_folders_are_classes(tmp_path: Path) -> None:
    trees.folders(tmp_path, ["sickle cell", "nor"])
    s = folders.read(tmp_path, slide_pattern="(?P<slide>P[0-9])_")
    assert s.codes == ("NOR", "SICKLE_CELL")
    assert s.slides() == ("P0", "P1", "P2", "P3")
    assert all(c.slide is None for c in folders.read(tmp_path).cells)


def test_erythrocytesidb_is_found_below(tmp_path: Path) -> None:
    trees.folders(tmp_path / "erythrocytesIDB1" / "individual cells", ["Circular", "elongated", "other"])
    s = reading.read(tmp_path, "erythrocytesidb", each_file_a_slide=True)
    assert s.counts() == {"NOR": 4, "OVA": 4, "OTH": 4}
    assert len(s.slides()) == 12
    assert any("declared" in note for note in s.notes)


@pytest.mark.parametrize(("pattern", "what"), [("(", "no regular expression"), ("P.", "group named slide")])
def test_a_wrong_slide_pattern_is_refused(tmp_path: Path, pattern: str, what: str) -> None:
    trees.folders(tmp_path, ["a", "b"])
    with pytest.raises(UsageError, match=what):
        folders.read(tmp_path, slide_pattern=pattern)


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="known: elsafty"):
        reading.read(tmp_path, "zip")
    with pytest.raises(UsageError, match="train cut"):
        reading.read(tmp_path, "chula")


def test_table_2_has_each_of_25_slides_once() -> None:
    slides = [s for part in TABLE_2.values() for s in part]
    assert sorted(map(int, slides)) == list(range(1, 26))
    # Table 8 says the scanners of the test slides.
    assert {s: SCANNER_OF[s] for s in TEST_SLIDES} == {"4": "2", "5": "1", "6": "1", "13": "4", "16": "4"}


def test_crops_are_never_stretched(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (50, 70, 3), np.uint8)
    np.testing.assert_array_equal(pictures.square(picture, None, 30), picture[10:40, 20:50])
    at_edge = pictures.square(picture, (0, 0, 10, 10), 30)
    np.testing.assert_array_equal(at_edge[10:, 10:], picture[:20, :20])
    assert not at_edge[:10].any()
    assert pictures.square(picture, None, 80).shape == (80, 80, 3)
    np.testing.assert_array_equal(pictures.square(picture, None, 80)[15:65, 5:75], picture)


def test_segmented_crops_are_zero_outside_of_the_mask(tmp_path: Path) -> None:
    s = elsafty.read(trees.elsafty(tmp_path, slides=(1,), each=2))
    plain, cut = pictures.load(s.cells, masks=True, side=32), pictures.load(s.cells, segmented=True, side=32)
    assert plain.masks is not None
    np.testing.assert_array_equal(cut.pixels, plain.pixels * plain.masks[..., None])
    bgr = cv2.imread(str(s.cells[0].picture))
    np.testing.assert_array_equal(plain.pixels[0], bgr[..., ::-1])
    assert pictures.diameter(plain) == pytest.approx(2 * 7, rel=0.06)


def test_masks_are_cut_at_half(tmp_path: Path) -> None:
    s = elsafty.read(trees.elsafty(tmp_path, slides=(1,), each=1))
    mask = s.cells[0].mask
    assert mask is not None
    grey = np.full((32, 32), 127, np.uint8)
    grey[10:20, 10:20] = 128
    cv2.imwrite(str(mask), grey)
    loaded = pictures.load(s.cells[:1], masks=True, side=32)
    assert loaded.masks is not None
    assert loaded.masks.sum() == 100


def test_missing_masks_are_said_so(tmp_path: Path) -> None:
    s = elsafty.read(trees.elsafty(tmp_path, slides=(1, 2), each=1, trees=("cropped images",)))
    with pytest.raises(RbcedgeError, match=r"6 of 6 cells have no mask.*--no-segmentation"):
        pictures.load(s.cells, segmented=True)
    with pytest.raises(RbcedgeError, match="6 of 6 cells have no mask"):
        pictures.load(s.cells, masks=True)
    assert len(pictures.load(s.cells)) == 6


def test_unreadable_pictures_are_named_and_many_are_refused(tmp_path: Path) -> None:
    s = elsafty.read(trees.elsafty(tmp_path, slides=range(1, 13), each=3))
    s.cells[5].picture.write_bytes(b"no picture")
    loaded = pictures.load(s.cells)
    assert len(loaded) == len(s.cells) - 1
    assert "cannot be read as a picture" in loaded.problems[0]
    assert s.cells[5] not in loaded.cells
    np.testing.assert_array_equal(loaded.pixels[5], pictures.load(s.cells[6:7]).pixels[0])
    s.cells[6].picture.write_bytes(b"")
    with pytest.raises(RbcedgeError, match="2 of 108 cells cannot be read"):
        pictures.load(s.cells)


def test_the_hash_follows_pictures_and_classes(tmp_path: Path) -> None:
    s = elsafty.read(trees.elsafty(tmp_path, slides=(1, 2), each=1))
    before = s.sha256()
    assert elsafty.read(tmp_path).sha256() == before
    s.cells[0].picture.write_bytes(s.cells[1].picture.read_bytes())
    assert s.sha256() != before


def test_ids_must_be_unique(tmp_path: Path) -> None:
    s = elsafty.read(trees.elsafty(tmp_path, slides=(1,), each=1))
    with pytest.raises(ValueError, match="unique"):
        CellSet(s.folder, s.layout, s.codes, (s.cells[0], s.cells[0]), {})


def test_numbers_are_sorted_as_people_count() -> None:
    assert sorted(["10", "9", "a", "P2", "P10"], key=natural) == ["9", "10", "P2", "P10", "a"]


def test_the_simulated_set_has_every_class_on_every_slide(tmp_path: Path) -> None:
    simulated.write(tmp_path / "s", cells=8, slides=(4, 14), size=(400, 300))
    s = elsafty.read(tmp_path / "s")
    assert not s.problems
    assert s.scanners() == {"4": "2", "14": "3"}
    for slide in ("4", "14"):
        codes = [c.code for c in s.cells if c.slide == slide]
        assert len(codes) == 8
        assert set(codes) == set(s.codes)
    loaded = pictures.load(s.cells, masks=True)
    assert loaded.masks is not None
    assert (loaded.masks[:, 30:50, 30:50].reshape(16, -1).any(1)).all()
    with pytest.raises(RbcedgeError, match="not empty"):
        simulated.write(tmp_path / "s")
    with pytest.raises(RbcedgeError, match="at least 8"):
        simulated.write(tmp_path / "t", cells=7)
