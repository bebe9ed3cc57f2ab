"""The chart's init container against an object store: its command and variables, with rclone."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from cascadebert_supervisor.errors import StartError
from cascadebert_supervisor.repository import cascades_of_repository
from tests.support.helm_variants import VARIANTS, objects

FILES = {
    "news/sst2/config.pbtxt": b'name: "sst2"',
    "news/sst2/1/policy.json": b"{}",
    "other/config.pbtxt": b"not ours",
}
KEY = "AKIDRIGHT"


@dataclass(frozen=True)
class Store:
    """The part of S3 that a copy needs: lists and reads of the bucket `models`, for one key."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        key = unquote(url.path).removeprefix("/models").lstrip("/")
        if f"Credential={KEY}/" not in self.headers.get("Authorization", ""):
            self._send(403, _error("InvalidAccessKeyId", "The key does not exist."))
        elif not key:
            self._send(200, _listing(parse_qs(url.query)))
        elif key in FILES:
            self._send(200, FILES[key])
        else:
            self._send(404, _error("NoSuchKey", "There is no such object."))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Mon, 30 Nov 2026 10:00:00 GMT")
        self.send_header("ETag", '"x"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _error(code: str, message: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def _listing(query: dict[str, list[str]]) -> bytes:
    prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
    found = sorted(key for key in FILES if key.startswith(prefix))
    rest = {key: key[len(prefix) :] for key in found}
    folders = {prefix + r.split("/")[0] + "/" for r in rest.values() if delimiter and "/" in r}
    files = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-11-30T10:00:00.000Z</LastModified>"
        f"<ETag>&quot;x&quot;</ETag><Size>{len(FILES[key])}</Size></Contents>"
        for key in found
        if not (delimiter and "/" in rest[key])
    )
    common = "".join(f"<CommonPrefixes><Prefix>{f}</Prefix></CommonPrefixes>" for f in folders)
    return (
        f"<ListBucketResult><Name>models</Name><Prefix>{prefix}</Prefix>"
        f"<IsTruncated>false</IsTruncated>{files}{common}</ListBucketResult>"
    ).encode()


@contextmanager
def store() -> Generator[Store, None, None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Store(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


def copy(
    endpoint: str, folder: Path, *, key: str = KEY, path: str = "models/news"
) -> subprocess.CompletedProcess[str]:
    """Run the init container of the variant s3, with this folder for /models."""
    values = VARIANTS["s3"]["repository"]
    bucket = {**values["bucket"], "path": path, "endpoint": endpoint}
    made = objects({**VARIANTS["s3"], "repository": {**values, "bucket": bucket}})
    (deployment,) = (each for each in made if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["initContainers"]
    arguments = [str(folder) if each == "/models" else each for each in container["args"]]
    environment = {each["name"]: each["value"] for each in container["env"]}
    secret = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": "secret"}
    return subprocess.run(
        ["rclone", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment, **secret},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


pytestmark = pytest.mark.skipif(
    shutil.which("rclone") is None, reason="rclone is not installed: apt-get install rclone"
)


def test_the_repository_arrives(tmp_path: Path) -> None:
    with store() as found:
        ended = copy(found.url, tmp_path)
    assert ended.returncode == 0, ended.stderr
    arrived = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*.*")}
    assert arrived == {
        name.removeprefix("news/"): content
        for name, content in FILES.items()
        if name.startswith("news/")
    }


def test_a_wrong_key_is_told_in_the_stores_words(tmp_path: Path) -> None:
    with store() as found:
        ended = copy(found.url, tmp_path, key="AKIDWRONG")
    assert ended.returncode != 0
    assert "Failed to copy: InvalidAccessKeyId: The key does not exist." in ended.stderr
    assert not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_reached_is_told_within_seconds(tmp_path: Path) -> None:
    ended = copy("http://127.0.0.1:1", tmp_path)
    assert ended.returncode != 0
    assert "connection refused" in ended.stderr


def test_a_path_without_a_repository_is_told_by_the_server(tmp_path: Path) -> None:
    """A bucket has no folders, so rclone cannot tell; it copies nothing."""
    with store() as found:
        ended = copy(found.url, tmp_path, path="models/nwes")
    assert ended.returncode == 0
    with pytest.raises(StartError, match="holds no published cascade"):
        cascades_of_repository(tmp_path)
