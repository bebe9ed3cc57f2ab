"""TLS of the gRPC port that `serve` opens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cascadebert_client.cli.tls_files import require_authority, require_pair

from ..errors import UsageError


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The files of a server that speaks TLS.

    Attributes:
        certificate: The server's certificate and those between it and its authority, in PEM.
        key: The private key of the certificate, not encrypted.
        client_authority: The authority whose certificates callers must show; None asks for none.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None

    def check(self) -> None:
        """Check the files as the options of `serve`.

        Raises:
            InvalidRequest: A file cannot be read, or is not what its option says.
        """
        require_pair("--tls-cert", self.certificate, "--tls-key", self.key)
        if self.client_authority is not None:
            require_authority("--tls-client-ca", self.client_authority)

    def flags(self) -> tuple[str, ...]:
        """Return the flags of tritonserver. They are about gRPC: it has no TLS for HTTP."""
        own = (
            f"--grpc-server-cert={self.certificate.resolve()}",
            f"--grpc-server-key={self.key.resolve()}",
        )
        if self.client_authority is None:
            return ("--grpc-use-ssl=true", *own)
        authority = f"--grpc-root-cert={self.client_authority.resolve()}"
        return ("--grpc-use-ssl-mutual=true", *own, authority)


def tls_of(
    certificate: Path | None, key: Path | None, client_authority: Path | None
) -> ServerTls | None:
    """Return the TLS files of the options of `serve`, or None without them.

    Raises:
        UsageError: An option is there without the ones that it needs.
    """
    if certificate is None and key is None:
        if client_authority is not None:
            raise UsageError("--tls-client-ca needs TLS: give --tls-cert and --tls-key, too")
        return None
    if certificate is None or key is None:
        raise UsageError("--tls-cert and --tls-key belong together: give both")
    return ServerTls(certificate, key, client_authority)
