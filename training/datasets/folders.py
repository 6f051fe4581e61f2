"""A plain set: a folder for each class, crops in it. Slides from the names by a pattern, or unknown."""

from __future__ import annotations

import re
from pathlib import Path

from rbcedge.training.datasets.cellset import CellSet, LabelledCell, empty_folders, pictures_below
from rbcedge.training.datasets.classmap import CODES, ClassMap, choose
from rbcedge.training.datasets.classmap import read as read_map

from rbcedge.errors import RbcedgeError, UsageError


def read(folder: Path, class_map: Path | None = None, slide_pattern: str | None = None) -> CellSet:
    r"""Read a folder for each class.

    Parameters
    ----------
    folder : Path
        Holds the class folders. ``masks/CLASS/NAME`` beside them, where it is there, holds masks.
    class_map : Path, optional
        Without it, and without ``class_map.json`` in `folder`, the folders' names are the codes, letter by letter.
    slide_pattern : str, optional
        Regular expression searched in a picture's path below `folder`, with a group ``slide`` and at will a group
        ``scanner``: ``(?P<slide>P\d+)_``.

    Raises
    ------
    RbcedgeError
        Where there are no class folders, or a folder's name cannot be a class code.
    UsageError
        Where the pattern is wrong.
    """
    pattern = compile_pattern(slide_pattern)
    pictures = [p for p in pictures_below(folder) if len(p.relative_to(folder).parts) > 1]
    names = sorted({p.relative_to(folder).parts[0] for p in pictures} - {"masks"})
    if not names:
        raise RbcedgeError(f"{folder}: no folders of pictures in it; expected one for each class.")
    if class_map is not None or (folder / "class_map.json").is_file():
        chosen = choose(folder, "folders", class_map) if class_map is None else read_map(class_map)
    else:
        chosen = _by_name(folder, names)
    chosen.check({*names, *empty_folders(folder)})
    return gather(folder, "folders", pictures, chosen, pattern, depth=0)


def gather(
    folder: Path, layout: str, pictures: list[Path], chosen: ClassMap, pattern: re.Pattern[str] | None, depth: int
) -> CellSet:
    """Make a set of crops whose class is the name of the folder `depth` levels below `folder`."""
    cells, problems = [], []
    seen: dict[str, Path] = {}
    for path in pictures:
        place = path.relative_to(folder)
        if place.parts[0] == "masks":
            continue
        code = chosen.code(place.parts[depth])
        if code is None:
            problems.append(f"{path}: its folder is not in the class map; not used")
            continue
        if not code:
            continue
        found = pattern.search(place.as_posix()) if pattern else None
        if pattern and not found:
            problems.append(f"{path}: the slide pattern does not fit its name; not used")
            continue
        key = place.with_suffix("").as_posix()
        if key in seen:
            problems.append(f"{path}: the same name as {seen[key].name}; not used")
            continue
        seen[key] = path
        masks = [folder / "masks" / place.with_suffix(s) for s in (path.suffix, ".png", ".jpg")]
        groups = found.groupdict() if found else {}
        cells.append(
            LabelledCell(
                id=key,
                picture=path,
                code=code,
                mask=next((m for m in masks if m.is_file()), None),
                slide=groups.get("slide"),
                scanner=groups.get("scanner"),
            )
        )
    if not cells:
        raise RbcedgeError(f"{folder}: no picture is used; the first: {problems[0] if problems else 'none'}.")
    cells.sort(key=lambda c: c.id)
    return CellSet(folder, layout, chosen.codes, tuple(cells), chosen.as_dict(), (), tuple(problems))


def compile_pattern(text: str | None) -> re.Pattern[str] | None:
    """Compile a slide pattern.

    Raises
    ------
    UsageError
        Where it is no regular expression, or has no group ``slide``.
    """
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as e:
        raise UsageError(f"--slide-pattern {text!r} is no regular expression ({e}).") from e
    if "slide" not in pattern.groupindex:
        raise UsageError(f"--slide-pattern {text!r} has no group named slide. Example: '(?P<slide>P[0-9]+)_'.")
    return pattern


def _by_name(folder: Path, names: list[str]) -> ClassMap:
    codes = {n: re.sub(r"\W+", "_", n.strip()).strip("_").upper() for n in names}
    odd = [n for n, code in codes.items() if not code.isidentifier()]
    if odd or len(set(codes.values())) < len(codes):
        what = f"the name {odd[0]!r} cannot be a class code" if odd else "two folder names give one class code"
        raise RbcedgeError(f"{folder}: {what}. Give a --class-map.")
    known = tuple(c for c in CODES if c in codes.values())
    order = known + tuple(sorted(set(codes.values()) - set(known)))
    escaped = {re.sub(r"([\[*?])", r"[\1]", n): code for n, code in codes.items()}
    return ClassMap(tuple(escaped.items()), order, str(folder))
