"""A network camera on this machine: JPEG by RTP (RFC 2435) over RTSP (RFC 2326), interleaved in TCP."""

from __future__ import annotations

import socketserver
import struct
import threading
import time
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

_PACKET = 1400


def rtp_packets(pixels: np.ndarray) -> Iterator[bytes]:
    """One (H, W, 3) uint8 BGR picture, sides multiples of 16, as RTP packets.

    The sequence number and the time are left to the sender. OpenCV writes baseline JPEG, 4:2:0, with the Huffman
    tables of ITU-T T.81 annex K.3, which is what type 1 of RFC 2435 is.
    """
    ok, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert ok
    data = encoded.tobytes()
    tables, at = b"", 2
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xDB:
            segment = data[at + 4 : at + 2 + length]
            for k in range(0, len(segment), 65):
                tables += segment[k + 1 : k + 65]
        at += 2 + length
    scan = data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") : -2]
    height, width = pixels.shape[:2]
    offset = 0
    while offset < len(scan):
        head = struct.pack(">IBBBB", offset, 1, 255, width // 8, height // 8)
        if offset == 0:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        part = scan[offset : offset + _PACKET - len(head)]
        offset += len(part)
        last = offset == len(scan)
        yield struct.pack(">BBHII", 0x80, 26 | (0x80 if last else 0), 0, 0, 0x5EED) + head + part


class RtspServer:
    """Serves `pictures` in turn, for ever, on 127.0.0.1. A context manager; may `stop` and `start` again."""

    def __init__(self, pictures: Sequence[np.ndarray], fps: float = 25.0) -> None:
        self.packets = [list(rtp_packets(p)) for p in pictures]
        self.fps = fps
        self.port = 0
        self._server: socketserver.ThreadingTCPServer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def start(self) -> None:
        outer = self
        self._stopping = stopping = threading.Event()

        class Handler(socketserver.StreamRequestHandler):
            timeout = 5

            def handle(self) -> None:
                try:
                    while not stopping.is_set():
                        request = self.rfile.readline().decode().split()
                        if not request:
                            return
                        headers = {}
                        while line := self.rfile.readline().decode().strip():
                            key, _, value = line.partition(":")
                            headers[key.lower()] = value.strip()
                        self._answer(request[0], headers)
                        if request[0] == "PLAY":
                            outer._play(self.wfile, stopping)
                            return
                except OSError:
                    pass  # the reader went away

            def _answer(self, method: str, headers: dict[str, str]) -> None:
                extra, body = "", ""
                if method == "OPTIONS":
                    extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                elif method == "DESCRIBE":
                    body = (
                        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=field\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
                        "m=video 0 RTP/AVP 26\r\na=control:track0\r\n"
                    )
                    extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                elif method == "SETUP":
                    extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
                elif method == "PLAY":
                    extra = "Session: 1\r\n"
                head = f"RTSP/1.0 200 OK\r\nCSeq: {headers.get('cseq', '0')}\r\n{extra}\r\n{body}"
                self.wfile.write(head.encode())

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = False

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="rtsp-server")
        self._thread.start()

    def _play(self, out, stopping: threading.Event) -> None:
        sequence = number = 0
        begun = time.monotonic()
        while not stopping.is_set():
            stamp = struct.pack(">I", int(number / self.fps * 90_000) & 0xFFFFFFFF)
            for packet in self.packets[number % len(self.packets)]:
                sent = packet[:2] + struct.pack(">H", sequence & 0xFFFF) + stamp + packet[8:]
                out.write(b"$\0" + struct.pack(">H", len(sent)) + sent)
                sequence += 1
            number += 1
            stopping.wait(max(0.0, begun + number / self.fps - time.monotonic()))

    def stop(self) -> None:
        self._stopping.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(5)
            self._server = self._thread = None

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
