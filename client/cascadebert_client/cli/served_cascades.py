"""Which cascade a command means: the one that is named, or the only one on the server."""

import argparse
import contextlib
from collections.abc import Generator, Sequence

from .._files.messages import did_you_mean, names_in_message
from ..errors import CascadeClientError, InvalidRequest, ModelNotFound, ServerUnavailable
from .server_arguments import client_from_arguments

DEFAULT_MODEL = "cascade"


def choose_model(args: argparse.Namespace, *, absent_ok: bool = False) -> None:
    """Set `args.model` if it is not given.

    It is the server's only cascade, or the one with the usual name. A server that does not tell its
    cascades may have one with the usual name.

    Args:
        args: The parsed arguments.
        absent_ok: Whether a server without a connection is no error here: the command says by
            itself what is wrong with it.

    Raises:
        InvalidRequest: The server has several, and none has the usual name.
        ServerUnavailable: There is no connection to the server.
    """
    if args.model is not None:
        return
    try:
        cascades = _cascades_asked(args)
    except ServerUnavailable as exc:
        # The message names the server alone: no model has been chosen.
        if exc.fault is not None and not absent_ok:
            raise
        cascades = ()
    except CascadeClientError:
        cascades = ()
    args.model = model_of(cascades, args.url)


def model_of(cascades: Sequence[str], server: str) -> str:
    """Return the cascade that a command means if it names none.

    Args:
        cascades: Those that there are.
        server: Where, for the message.

    Raises:
        InvalidRequest: There are several, and none has the usual name.
    """
    if len(cascades) == 1:
        return cascades[0]
    if cascades and DEFAULT_MODEL not in cascades:
        raise InvalidRequest(
            f"{server} has several cascades, {names_in_message(cascades)}: choose one with --model"
        )
    return DEFAULT_MODEL


def cascades_on_server(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the cascades on the server; none if it does not tell."""
    with contextlib.suppress(CascadeClientError):
        return _cascades_asked(args)
    return ()


def _cascades_asked(args: argparse.Namespace) -> tuple[str, ...]:
    asking = argparse.Namespace(**{**vars(args), "model": DEFAULT_MODEL, "model_version": None})
    with client_from_arguments(asking) as client:
        return client.cascades(timeout_s=args.timeout_s)


@contextlib.contextmanager
def naming_cascades(args: argparse.Namespace) -> Generator[None, None, None]:
    """Add the cascades that there are to the message if the model is unknown.

    Raises:
        ModelNotFound: The block raises it.
    """
    try:
        yield
    except ModelNotFound as exc:
        cascades = cascades_on_server(args)
        if not cascades or args.model in cascades:
            raise
        meant = did_you_mean(args.model, cascades).strip()
        text = f"{exc}; the server has {names_in_message(cascades)}"
        raise ModelNotFound(f"{text}: {meant}" if meant else text, target=exc.target) from exc
