"""Serves the page of the browser's tour; the servers must allow its origin before it is opened."""

import http.server
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from harness import environment
from scene import Scene


class Handler(http.server.SimpleHTTPRequestHandler):
    """The files of a folder, where everything is (`/scene.json`), and what the page reports."""

    def __init__(self, *arguments: object, owner: "Page", **options: object):
        self._owner = owner
        super().__init__(*arguments, **options)

    def log_message(self, *_: object) -> None:
        """Says nothing of good requests."""

    def do_GET(self) -> None:
        """Sends a file."""
        if self.path != "/scene.json":
            super().do_GET()
            return
        body = json.dumps(self._owner.scene).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Takes one line of the report; the line `end` is the last."""
        line = self.rfile.read(int(self.headers["content-length"])).decode()
        if line == "end":
            self._owner.ended.set()
        else:
            self._owner.take(line)
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()


class Page:
    """A folder on a port of its own, and what is known of its visitor."""

    def __init__(self, folder: str):
        self.scene: dict[str, str] = {}
        self.take: Callable[[str], bool] = lambda _: False
        self.ended = threading.Event()
        handler = partial(Handler, owner=self, directory=folder)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def tour(folder: str, browser: list[str], make_row: Callable, limit_s: float) -> object:
    """Opens the page in a browser, until it has reported all; returns its row."""
    page = Page(folder)
    try:
        with (
            Scene("--cors-origin", page.origin) as scene,
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        ):
            # The faulty server speaks gRPC only.
            row = make_row(scene, unseen=("once",))
            page.scene, page.take = scene.environment(), row.take
            # Chromium has no sandbox for root, whom build servers run as.
            sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
            options = [*sandbox, f"--user-data-dir={profile}"]
            command = [*browser, *options, f"{page.origin}/index.html"]
            opened = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, env=environment(HOME=profile)
            )
            try:
                page.ended.wait(limit_s)
            finally:
                opened.terminate()
                opened.wait(limit_s)
            return row
    finally:
        page.server.shutdown()
        page.server.server_close()
