"""Folders and files on a disk or in an object store, by fsspec."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import UsageError
from ..extras import needs_extra

TEMPORARY = ".tmp"
"""The ending of a file that is not complete."""

# Class names of the errors of s3fs, gcsfs, adlfs and their libraries, which share no base.
_DENIED = ("credential", "accessdenied", "forbidden", "permission", "unauthorized", "refresherror")
_REFUSED = ("403", "access denied", "accessdenied", "forbidden", "invalidaccesskey", "401")
_UNREACHABLE = ("connect", "timeout", "resolve", "gaierror")
_LIBRARIES = ("aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs")


class Store:
    """A folder, or one file, at a path or a URL such as `s3://bucket/folder`.

    Attributes:
        url: As it was given; names in messages begin with it.
        is_local: Whether it is on a disk of this machine.
    """

    def __init__(self, url: str) -> None:
        """Connect nothing yet.

        Raises:
            UsageError: fsspec knows no such store, or a package that it needs is not installed.
        """
        with needs_extra("score"):
            from fsspec.core import url_to_fs
        self.url = url
        try:
            fs, root = url_to_fs(url)
        except ImportError as exc:
            raise UsageError(f"{url}: {exc}") from exc
        except ValueError as exc:
            raise UsageError(f"{url} is no path and no store that fsspec knows: {exc}") from exc
        except Exception as exc:
            raise _named(exc, url) from exc
        self._fs: Any = fs
        self._root = str(root).rstrip("/") or "/"
        protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
        self.is_local = protocol in {"file", "local"}

    def __getstate__(self) -> str:
        return self.url

    def __setstate__(self, state: str) -> None:
        self.__init__(state)

    def path(self, name: str = "") -> str:
        """The path of a file in the store's own words; "" is the folder itself."""
        return f"{self._root}/{name}" if name else self._root

    def kind(self) -> str | None:
        """`file` or `directory`; None if there is neither."""
        with self._errors_named():
            # A store may remember a listing; what is there now counts.
            self._fs.invalidate_cache()
            try:
                return str(self._fs.info(self._root)["type"])
            except FileNotFoundError:
                return None

    def names(self, folder: str = "") -> dict[str, str]:
        """What lies in a folder, `file` or `directory`, by name; nothing in a missing folder."""
        with self._errors_named(folder):
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self.path(folder), detail=True)
            except FileNotFoundError:
                return {}
        return {
            str(each["name"]).rstrip("/").rpartition("/")[2]: str(each["type"])
            for each in found
            # Stores list an empty object as the folder that it marks.
            if str(each["name"]).rstrip("/") != self.path(folder).rstrip("/")
        }

    def files(self) -> list[str]:
        """The files in the folder and below it, sorted, relative to it."""
        with self._errors_named():
            self._fs.invalidate_cache()
            found: list[str] = self._fs.find(self._root)
        prefix = self._root.rstrip("/") + "/"
        return sorted(str(each)[len(prefix) :] for each in found if str(each).startswith(prefix))

    @contextlib.contextmanager
    def opened(self, name: str = "") -> Generator[BinaryIO, None, None]:
        """Open a file for reading."""
        with self._errors_named(name), self._fs.open(self.path(name), "rb") as stream:
            yield cast("BinaryIO", stream)

    def read(self, name: str) -> bytes:
        """Read a file whole."""
        with self._errors_named(name):
            return cast("bytes", self._fs.cat_file(self.path(name)))

    def fingerprint(self, name: str = "") -> str:
        """What tells that a file has changed: size and time on a disk, or the store's own tag."""
        with self._errors_named(name):
            if self.is_local:
                found = Path(self.path(name)).stat()
                return f"{found.st_size}-{found.st_mtime_ns}"
            info = self._fs.info(self.path(name))
            tag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or info.get("created")
            return f"{info.get('size')}-{tag or info.get('LastModified') or info.get('mtime')}"

    def make_folder(self, folder: str = "") -> None:
        """Make a folder; object stores have none."""
        with self._errors_named(folder):
            self._fs.makedirs(self.path(folder), exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """Write a file that is complete or not there, in the place of the one of this name.

        On a disk under another name first. An object in a store appears when all of it is there.
        """
        with self._errors_named(name):
            if not self.is_local:
                self._fs.pipe_file(self.path(name), data)
                return
            path = Path(self.path(name))
            partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY}")
            try:
                with partial.open("wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it, if it is there."""
        with self._errors_named(name), contextlib.suppress(FileNotFoundError):
            self._fs.rm(self.path(name), recursive=True)

    @contextlib.contextmanager
    def _errors_named(self, name: str = "") -> Generator[None, None, None]:
        try:
            yield
        except (UsageError, KeyboardInterrupt, GeneratorExit):
            raise
        except Exception as exc:
            named = _named(exc, f"{self.url.rstrip('/')}/{name}" if name else self.url)
            if named is exc:
                raise
            raise named from exc


def _named(exc: Exception, what: str) -> Exception:
    """The error in one sentence; the exception itself if it is not the store's."""
    kind, text = type(exc).__name__.lower(), " ".join(str(exc).split())
    shown = _short(text) or kind
    unreachable = isinstance(exc, (ConnectionError, TimeoutError))
    message = None
    if getattr(exc, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
        message = "the disk is full: free space, and --resume goes on"
    elif isinstance(exc, FileNotFoundError):
        return UsageError(f"{what} does not exist: check the path")
    elif any(each in kind for each in _DENIED) or any(each in text.lower() for each in _REFUSED):
        message = f"the store refuses access ({shown}): check the credentials"
    elif unreachable or any(each in kind for each in _UNREACHABLE):
        message = f"the store cannot be reached ({shown})"
    elif isinstance(exc, OSError):
        message = _short(exc.strerror or text) or kind
    elif type(exc).__module__.partition(".")[0] in _LIBRARIES:
        message = f"{type(exc).__name__}: {shown}"
    return exc if message is None else UsageError(f"{what}: {message}")


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
