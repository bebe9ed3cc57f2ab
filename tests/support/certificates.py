"""Certificates for TLS, made by openssl as docs/security.md makes them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """A folder with authorities and their certificates, each a .crt and its .key."""

    folder: Path

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def make_certificates(folder: Path, authorities: Mapping[str, Mapping[str, str]]) -> Certificates:
    """Make certificates.

    Args:
        folder: Where they are written.
        authorities: By authority, the subjectAltName of each certificate that it signs, by name.
    """

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for authority, names in authorities.items():
        files = ("-keyout", f"{authority}.key", "-out", f"{authority}.crt")
        openssl("req", "-x509", *new_key, "-days", "2", "-subj", f"/CN={authority}", *files)
        for name, alternative in names.items():
            openssl(
                *("req", *new_key, "-subj", f"/CN={name}"),
                *("-addext", f"subjectAltName={alternative}"),
                *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
            )
            openssl(
                *("x509", "-req", "-in", f"{name}.csr", "-days", "2", "-copy_extensions", "copy"),
                *("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial"),
                *("-out", f"{name}.crt"),
            )
    return Certificates(folder)
