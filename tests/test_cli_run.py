"""The command line from end to end, with stand-ins for the two networks."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_help import rows, run, summary
from session_fakes import CODES, field_of_discs, write_pictures


def test_a_folder_of_pictures(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 3)
    code, out, err = run(cli, "slide", "--out", "out")
    assert (code, err) == (0, "")
    for text in ("slide: 3 pictures", "bundle   test, litert int8", "1.000 given (0.190 µm/px)", "36 counted"):
        assert text in out
    assert f"results: {tmp_path / 'out'}" in out
    result = summary(tmp_path / "out")
    assert result["differential"]["NOR"] == {"count": 21, "percent": 70.0, "ci95": [50.6041, 85.2655], "grade": ""}
    assert result["cells"] == {
        "detected": 39,
        "counted": 36,
        "single": 30,
        "overlapped": 3,
        "unclassified": 3,
        "estimated_red_cells": 42,
    }
    assert result["fields"] == {"seen": 3, "counted": 3, "rejected": {}, "dropped": 0, "repeated": 0}
    assert result["engine"] == {"name": "litert", "precision": "int8"}
    assert result["bundle"]["name"] == "test"
    assert (result["schema"], result["scale"], result["outcome"]) == (1, 1.0, "finished")
    assert any(flag.startswith("Ovalocytes 20.0 %") for flag in result["flags"])
    assert {"p50", "p90", "p99", "max"} == set(result["timing_ms"]["total"])


def test_cells_csv_column_by_column(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 2)
    run(cli, "slide", "--out", "out")
    path = tmp_path / "out" / "cells.csv"
    header = path.read_text().splitlines()[0]
    assert header == (
        "field,source,cell,x,y,w,h,cx,cy,area_px,diameter_um,code,confidence,unclassified,counted,"
        "p_NOR,p_OVA,p_TEA,p_TWO,border"
    )
    cells = rows(path)
    assert len(cells) == 26
    assert [c["source"] for c in cells] == ["0.png"] * 13 + ["1.png"] * 13
    assert [int(c["field"]) for c in cells] == [1] * 13 + [2] * 13
    assert [int(c["cell"]) for c in cells[:13]] == list(range(1, 14))
    first = cells[0]
    assert (float(first["cx"]), float(first["cy"])) == (45.0, 40.0)
    assert [int(first[k]) for k in "xywh"] == [45 - 18, 40 - 18, 37, 37]
    area = int(first["area_px"])
    assert area == int((cv2.circle(np.zeros((50, 50), np.uint8), (25, 25), 18, 1, -1, cv2.LINE_8)).sum())
    assert float(first["diameter_um"]) == pytest.approx(2 * (area / np.pi) ** 0.5 * 0.19, abs=1e-3)
    assert first["code"] == "NOR"
    assert float(first["confidence"]) == pytest.approx(0.91, abs=1e-3)
    assert (first["unclassified"], first["counted"], first["border"]) == ("0", "1", "0")
    for cell in cells:
        p = [float(cell[f"p_{code}"]) for code in CODES]
        assert sum(p) == pytest.approx(1, abs=1e-4)
        assert CODES[int(np.argmax(p))] == cell["code"]
        assert float(cell["confidence"]) == max(p)
    doubtful = [c for c in cells if c["unclassified"] == "1"]
    assert [(c["code"], c["counted"]) for c in doubtful] == [("TWO", "1")] * 2
    edge = [c for c in cells if c["border"] == "1"]
    assert [(c["x"], c["counted"], c["code"]) for c in edge] == [("0", "0", "NOR")] * 2


def test_fields_csv_and_unreadable_pictures(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 2)
    (tmp_path / "slide" / "0b.png").write_bytes(b"")
    (tmp_path / "slide" / "1b.jpg").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "slide" / "2.png"), field_of_discs() // 8)
    code, out, err = run(cli, "slide", "--out", "out")
    assert (code, err) == (0, "")
    assert "skipped 0b.png" in out
    assert "2 skipped" in out
    assert "1 rejected: too dark 1" in out
    header = (tmp_path / "out" / "fields.csv").read_text().splitlines()[0].split(",")
    expected = "field,source,index,time_s,verdict,reason,sharpness,density,overlap_ratio,cells,new_cells"
    assert ",".join(header[:11]) == expected
    assert header[-2:] == ["frames", "scale"]
    assert {"segment_ms", "components_ms", "classify_ms"} <= set(header[11:-2])
    fields = rows(tmp_path / "out" / "fields.csv")
    assert [(f["source"], f["verdict"]) for f in fields] == [
        ("0.png", "counted"),
        ("0b.png", "skipped"),
        ("1.png", "counted"),
        ("1b.jpg", "skipped"),
        ("2.png", "rejected"),
    ]
    assert [f["field"] for f in fields] == ["1", "", "2", "", "3"]
    assert [f["index"] for f in fields] == ["0", "", "1", "", "2"]
    assert [f["cells"] for f in fields][::2] == ["13", "13", fields[4]["cells"]]
    assert [f["new_cells"] for f in fields] == ["12", "0", "12", "0", "0"]
    assert fields[4]["reason"] == "too dark"
    assert 0 < float(fields[0]["density"]) < 0.5
    assert float(fields[0]["sharpness"]) > 0.1
    # One TWO (and one doubtful cell, most like TWO) among twelve whole ones.
    assert float(fields[0]["overlap_ratio"]) == pytest.approx(2 / 10)
    skipped = summary(tmp_path / "out")["skipped"]
    assert [g["source"] for g in skipped] == ["0b.png", "1b.jpg"]
    assert all(g["reason"] for g in skipped)
    # The rejected picture's cells are listed and classified all the same.
    rejected = [c for c in rows(tmp_path / "out" / "cells.csv") if c["source"] == "2.png"]
    assert {c["counted"] for c in rejected} <= {"0"}


def test_in_a_log_each_message_is_one_line(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    write_pictures(tmp_path / "slide", 1)
    (tmp_path / "slide" / "a name of some length.png").write_bytes(b"no picture")
    for arguments in (
        ("run", "slide", "--bundle", "bundle", "--scale", "1", "--no-live", "--out", "o"),
        ("export", "o"),
    ):
        lines = cli(*arguments)[1].splitlines()
        (told,) = (line for line in lines if line.startswith("! skipped"))
        assert told.endswith("(its first bytes are those of no known kind)")
        assert any(line == "finished; grades: after ICSH 2015" for line in lines)


@pytest.mark.parametrize("shape", [(1, 1), (480, 640)])
def test_pictures_without_cells(cli, tmp_path: Path, shape: tuple[int, int]) -> None:
    cv2.imwrite(str(tmp_path / "plain.png"), np.full((*shape, 3), 230, np.uint8))
    code, out, err = run(cli, "plain.png", "--out", "out", "--save", "masks,overlays,crops")
    assert (code, err) == (0, "")
    assert "1 rejected" in out
    assert rows(tmp_path / "out" / "cells.csv") == []
    mask = cv2.imread(str(tmp_path / "out" / "masks" / "plain.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == shape
    assert not mask.any()


def test_save(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide" / "a", 1)
    write_pictures(tmp_path / "slide" / "b", 1)
    cv2.imwrite(str(tmp_path / "slide" / "b" / "0.bmp"), field_of_discs(3))
    code, _, err = run(cli, "slide", "--out", "out", "--save", "masks, overlays,crops", "--quiet")
    assert (code, err) == (0, "")
    out = tmp_path / "out"
    masks = sorted(p.relative_to(out / "masks").as_posix() for p in (out / "masks").rglob("*.png"))
    assert masks == ["a/0.png", "b/0.png", "b/0.png.png"]
    truth = np.where(field_of_discs(0)[..., 1] < 180, 255, 0).astype(np.uint8)
    mask = cv2.imread(str(out / "masks" / "a" / "0.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, truth)
    assert len(list((out / "overlays").rglob("*.jpg"))) == 3
    crops = {p.parent.name: [] for p in (out / "crops").rglob("*.png")}
    assert set(crops) == set(CODES)
    cells = rows(out / "cells.csv")
    for cell in cells:
        crop = cv2.imread(str(out / "crops" / cell["code"] / f"{cell['field']}_{cell['cell']}.png"))
        assert crop.shape == (80, 80, 3)
        assert int((crop.any(axis=2)).sum()) == int(cell["area_px"])
    assert len(list((out / "crops").rglob("*.png"))) == len(cells)
    assert not list(out.rglob("*.part"))


def test_the_default_folder_is_a_new_one_each_time(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 1)
    for _ in range(2):
        code, out, _ = run(cli, "slide")
        assert code == 0
    assert str(tmp_path / "data" / "rbcedge" / "sessions") in out
    assert len(list((tmp_path / "data" / "rbcedge" / "sessions").iterdir())) == 2


def test_until(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 9)
    code, out, _ = run(cli, "slide", "--out", "out", "--until", "20")
    assert code == 0
    assert "until    20 cells" in out
    result = summary(tmp_path / "out")
    assert (result["cells"]["counted"], result["fields"]["seen"], result["outcome"]) == (24, 2, "goal reached")


def test_quiet_and_no_live(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 2)
    assert run(cli, "slide", "--out", "a", "--quiet") == (0, "", "")
    code, out, _ = run(cli, "slide", "--out", "b", "--no-live")
    assert code == 0
    assert out.count("24 counted") == 1


def test_measured_scale(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 2)
    large = cv2.resize(field_of_discs(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "large.png"), large)
    cli("run", "large.png", "--bundle", "bundle", "--out", "out")
    result = summary(tmp_path / "out")
    assert result["scale"] == pytest.approx(38 / (2 * 37), rel=0.1)
    # The same discs, whatever the enlargement: a pixel is half as large.
    sizes = [float(c["diameter_um"]) for c in rows(tmp_path / "out" / "cells.csv") if c["border"] == "0"]
    assert np.median(sizes) == pytest.approx(38 * 0.19, rel=0.05)


def test_um_per_px_sets_the_scale(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 1)
    code, out, _ = cli("run", "slide", "--bundle", "bundle", "--out", "out", "--um-per-px", "0.095")
    assert code == 0
    assert "0.500 given (0.095 µm/px)" in out
    assert summary(tmp_path / "out")["scale"] == 0.5
    cell = rows(tmp_path / "out" / "cells.csv")[0]
    assert float(cell["diameter_um"]) == pytest.approx(2 * (int(cell["area_px"]) / np.pi) ** 0.5 * 0.095, abs=1e-3)


def test_a_grading_file_is_used_and_recorded(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 1)
    steps = {"OVA": {"few": 1, "moderate": 2, "many": 3}}
    (tmp_path / "ours.json").write_text(json.dumps({"name": "ours", "steps": steps}))
    run(cli, "slide", "--out", "out", "--grading", "ours.json")
    assert summary(tmp_path / "out")["differential"]["OVA"]["grade"] == "3+"
    (tmp_path / "ours.json").unlink()
    (tmp_path / "out" / "summary.json").unlink()
    assert cli("export", "out")[0] == 0
    again = summary(tmp_path / "out")
    assert (again["grading"], again["differential"]["OVA"]["grade"]) == ("ours", "3+")


def test_export_gives_the_same_files_again(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 2)
    run(cli, "slide", "--out", "out")
    names = ("cells.csv", "fields.csv", "summary.json")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / "out" / name).unlink()
    code, out, _ = cli("export", "out")
    assert code == 0
    assert "24 counted" in out
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == before
