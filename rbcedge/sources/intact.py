"""Is a picture file whole? Decoders fill a cut JPEG with grey and write on the terminal; so look first."""

from __future__ import annotations

import zlib

# Leading bytes of the kinds of picture that are read, (offset, bytes).
_SIGNATURES: tuple[tuple[int, bytes], ...] = (
    (0, b"\xff\xd8\xff"),  # JPEG
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"II*\x00"),  # TIFF
    (0, b"MM\x00*"),
    (0, b"II+\x00"),  # BigTIFF
    (0, b"MM\x00+"),
    (0, b"BM"),
    (8, b"WEBP"),
    (4, b"jP  "),  # JPEG 2000
    (0, b"\xff\x4f\xff\x51"),
    *((0, b"P%d" % n) for n in range(1, 7)),  # portable any-map
)


def flaw(data: bytes) -> str | None:
    """Why `data` is not a whole picture file, in words, or None where nothing cheap to tell is wrong.

    JPEG: the entropy-coded data must end with an EOI marker (ITU-T T.81, B.1.1.3). PNG: every chunk must be
    whole with its CRC right, up to IEND (ISO/IEC 15948, 5.3). Others: the signature only.
    """
    if not data:
        return "empty file (0 bytes)"
    if not any(data[at : at + len(mark)] == mark for at, mark in _SIGNATURES):
        return "not a picture (its first bytes are those of no known kind)"
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG"):
        return _png(data)
    return None


def _jpeg(data: bytes) -> str | None:
    at = 2
    # Walk the segments up to the first scan: a thumbnail inside EXIF has an EOI of its own.
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:
            return None if data.find(b"\xff\xd9", at) >= 0 else "cut short: the end of the picture is missing"
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return "cut short or damaged: it holds no picture data"


def _png(data: bytes) -> str | None:
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return "damaged: a checksum inside it is wrong"
        if kind == b"IEND":
            return None
        at = end + 4
    return "cut short: the end of the picture is missing"
