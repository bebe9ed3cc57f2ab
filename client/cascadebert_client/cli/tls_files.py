"""TLS files, checked before gRPC refuses them at every connection without saying which."""

import ssl
from pathlib import Path

from ..errors import InvalidRequest


def require_authority(option: str, path: Path) -> None:
    """Refuse a file that holds no certificate.

    Args:
        option: The option that names the file, for the message.
        path: The file.

    Raises:
        InvalidRequest: The file cannot be read, or is not PEM.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as exc:
        raise InvalidRequest(f"{option} {path} holds no certificate: give it as PEM") from exc
    except OSError as exc:
        raise InvalidRequest(f"{option} {path} cannot be read: {exc.strerror}") from exc


def require_pair(certificate_option: str, certificate: Path, key_option: str, key: Path) -> None:
    """Refuse a certificate and a key that do not belong together.

    Args:
        certificate_option: The option that names the certificate, for messages.
        certificate: The file of the certificate.
        key_option: The option that names the key.
        key: The file of the key.

    Raises:
        InvalidRequest: A file cannot be read, is not PEM, or the key is another certificate's.
    """
    for option, path in ((certificate_option, certificate), (key_option, key)):
        try:
            path.read_bytes()
        except OSError as exc:
            raise InvalidRequest(f"{option} {path} cannot be read: {exc.strerror}") from exc
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # gRPC cannot read encrypted keys, and the command must not ask for a password.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise InvalidRequest(
                f"{key_option} {key} is not the key of the certificate {certificate_option} "
                f"{certificate}: give the one that belongs to it"
            ) from exc
        raise InvalidRequest(
            f"{certificate_option} {certificate} and {key_option} {key} cannot be read as PEM: "
            "give a certificate and its key, which must not be encrypted"
        ) from exc
