"""A network camera on this machine: motion JPEG over HTTP, as IP cameras serve it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_BOUNDARY = b"rbcedgeframe"


class MjpegServer:
    """Serves `pictures` (JPEG bytes) in turn at `fps`, for ever, on 127.0.0.1. A context manager.

    `stop` breaks all connections and closes the port; `start` opens the same port again.
    """

    def __init__(self, pictures: Sequence[bytes], fps: float = 50.0) -> None:
        self.pictures = list(pictures)
        self.fps = fps
        self.port = 0
        self.served = 0
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self.silent = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    def start(self) -> None:
        outer = self
        self._stopping = stopping = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path != "/stream":
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}")
                self.end_headers()
                try:
                    while not stopping.is_set():
                        if outer.silent.is_set():
                            stopping.wait(0.01)
                            continue
                        picture = outer.pictures[outer.served % len(outer.pictures)]
                        outer.served += 1
                        head = b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
                        self.wfile.write(head % (_BOUNDARY, len(picture)) + picture + b"\r\n")
                        self.wfile.flush()
                        stopping.wait(1 / outer.fps)
                except OSError:
                    pass  # the reader went away
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = False

        deadline = time.monotonic() + 5
        while True:
            try:
                self._server = Server(("127.0.0.1", self.port), Handler)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="mjpeg-server")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()  # joins the handlers
            self._thread.join(5)
            self._server = self._thread = None

    def __enter__(self) -> MjpegServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
