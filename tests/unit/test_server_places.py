"""The ports and the paths of an embedded server."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from cascadebert_build.errors import UsageError
from cascadebert_build.server.port_holder import holder_of
from cascadebert_build.server.ports import HOST, Ports, resolve_ports
from cascadebert_build.server.temporary import is_plain, make_folder, parents, plain_path


def test_the_process_that_holds_a_port_is_named() -> None:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        holder = holder_of(port)
        assert holder is not None
        assert holder.pid == os.getpid()
        assert holder.program
        with pytest.raises(UsageError) as caught:
            resolve_ports(Ports(0, port, 0))
    assert f"process {os.getpid()} " in str(caught.value)
    assert f"kill {os.getpid()}" in str(caught.value)
    assert "--grpc-port" in str(caught.value)
    assert holder_of(port) is None


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match=rf"--http-port is {port}"):
        resolve_ports(Ports(port, 0, 0))


@pytest.mark.parametrize("name", ["models", "modèles", "a+b@2,3:x_%=-"])
def test_a_path_that_a_shell_reads_as_one_word_is_used_as_it_is(tmp_path: Path, name: str) -> None:
    assert plain_path(Path("/srv") / name, tmp_path) == Path("/srv") / name


@pytest.mark.parametrize("name", ["my models", "a'b", 'a"b', "$HOME", "a;b", "a*b", "a\nb", "a(b)"])
def test_another_path_is_reached_through_a_link(tmp_path: Path, name: str) -> None:
    repository = tmp_path / name
    repository.mkdir()
    (repository / "file").write_text("content")
    for _ in range(2):  # a restart uses the same folder
        path = plain_path(repository, tmp_path)
        assert is_plain(path)
        assert (path / "file").read_text() == "content"


def test_the_temporary_folder_is_plain_even_if_tmpdir_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "my temp"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    assert odd not in parents()
    folder = make_folder()
    folder.rmdir()
    assert is_plain(folder)
    monkeypatch.setattr("cascadebert_build.server.temporary.parents", list)
    with pytest.raises(UsageError, match="TMPDIR"):
        make_folder()
