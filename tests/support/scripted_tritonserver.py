"""A tritonserver that a test steers: `scripted_tritonserver.py BEHAVIOUR FLAGS OF TRITONSERVER`.

Behaviours: serve, ignore-sigterm, slow (ready at the third request), serve-and-lose-a-stub, and
hang, hang-and-lose-a-stub and crash (never ready).
While it serves, GET /break makes all probes fail, and GET /end/N ends the process with code N.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class Script(HTTPServer):
    """Answers readiness and probes."""

    broken = False
    unready = 0


class Handler(BaseHTTPRequestHandler):
    server: Script  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if self.path.startswith("/end/"):
            os._exit(int(self.path.rpartition("/")[2]))
        if self.path == "/break":
            self.server.broken = True
        self.server.unready -= 1
        self._reply(503 if self.server.unready > 0 else 200, b"{}")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.broken:
            self._reply(500, b'{"error": "broken"}')
        else:
            self._reply(200, b'{"outputs": [{"name": "LABEL", "data": ["x"]}]}')

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main(behaviour: str, flags: list[str]) -> None:
    if "--help" in flags:
        print("  --model-repository <string>")
        sys.exit(1)
    if behaviour == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if behaviour.endswith("lose-a-stub"):
        # A child with the first 15 letters of the stub's name, which nothing collects.
        script = "printf triton_python_b > /proc/$$/comm; exit 7"
        os.posix_spawn("/bin/sh", ["sh", "-c", script], os.environ)
    if behaviour.startswith("hang"):
        time.sleep(600)
    if behaviour == "ignore-sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    port = next(flag.partition("=")[2] for flag in flags if flag.startswith("--http-port="))
    server = Script(("127.0.0.1", int(port)), Handler)
    server.unready = 3 if behaviour == "slow" else 0
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
