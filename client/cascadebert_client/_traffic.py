"""The version of a cascade that a request goes to, if several versions share the traffic.

Triton has no router: a call without a version goes to the newest loaded version. So the client
chooses.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ._checks import is_real
from ._rows import Utf8Row
from .errors import InvalidRequest

BY_REQUEST = "request"
BY_TEXT = "text"
BY = (BY_REQUEST, BY_TEXT)
"""A version is drawn for each request, or chosen by the text so that equal texts get the same."""

# In floating point a sum of shares such as 0.7 + 0.2 + 0.1 may be this much above 1.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a request that go to one version.

    Attributes:
        version: The version; the empty string lets the server choose.
        indices: The positions of the rows, ascending.
    """

    version: str
    indices: Sequence[int]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Shares of the traffic, by version.

    Attributes:
        rest: The version that gets the rest; the empty string lets the server choose.
        shares: The shares of the other versions, each above 0, together at most 1.
        by_text: Whether equal rows always go to the same version.
        draw: Draws a number from [0, 1).
    """

    rest: str = ""
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    by_text: bool = False
    draw: Callable[[], float] = field(default=random.random, repr=False, compare=False)

    def parts(self, rows: Sequence[Utf8Row]) -> list[Part]:
        """Divide the rows of a request among the versions. Every row is in one part."""
        if not self.shares:
            return [Part(self.rest, range(len(rows)))]
        if not self.by_text:
            return [Part(self._version_at(self.draw()), range(len(rows)))]
        indices: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            indices.setdefault(self._version_at(_place_of(row)), []).append(index)
        return [Part(version, of_version) for version, of_version in indices.items()]

    def _version_at(self, place: float) -> str:
        """Return the version whose share covers a place in [0, 1).

        Shares lie side by side from 0, the smallest version first. So if there is only one share
        and it is raised, it keeps its places.
        """
        end = 0.0
        for version, share in self.shares.items():
            end += share
            if place < end:
                return version
        return self.rest


def traffic_from_shares(
    shares: Mapping[str, float] | Mapping[int, float] | None,
    *,
    rest: str = "",
    by: str = BY_REQUEST,
) -> Traffic:
    """Return the shares after checking them.

    Args:
        shares: The shares by version, each from 0 to 1, together at most 1; None for none.
        rest: The version that gets the rest.
        by: One of `BY`.

    Raises:
        InvalidRequest: A share, a version or `by` is wrong.
    """
    if by not in BY:
        raise InvalidRequest(f"traffic_by is {by!r}: give {' or '.join(map(repr, BY))}")
    if shares is None:
        return Traffic(rest)
    if not isinstance(shares, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(f"traffic is {shares!r}: give shares by version, such as {{'2': 0.1}}")
    checked: dict[str, float] = {}
    for version, share in shares.items():
        name = str(version)
        if not name.isdecimal() or name.startswith("0"):
            raise InvalidRequest(f"traffic names version {version!r}: give a number from 1 on")
        if name in checked:
            raise InvalidRequest(f"traffic names version {name} twice: give it one share")
        if name == rest:
            raise InvalidRequest(
                f"traffic names version {name}, which is model_version and gets the rest: leave "
                "one of them out"
            )
        # `not 0 <= x <= 1` also refuses NaN.
        if not is_real(share) or not 0 <= share <= 1:
            raise InvalidRequest(
                f"traffic gives version {name} a share of {share!r}: give a number from 0 to 1"
            )
        checked[name] = float(share)
    total = sum(checked.values())
    if total > 1 + _ROUNDING:
        raise InvalidRequest(
            f"the shares of traffic are {total:g} together: give at most 1; the rest goes to "
            "model_version, or to the version that the server chooses"
        )
    # In the same order for all clients.
    kept = {version: checked[version] for version in sorted(checked, key=int)}
    return Traffic(rest, {v: s for v, s in kept.items() if s > 0}, by == BY_TEXT)


def _place_of(row: Utf8Row) -> float:
    """Return a place in [0, 1): always the same for a row, and uniform over rows."""
    text, pair = row
    digest = hashlib.blake2b(text, digest_size=8)
    if pair is not None:
        digest.update(b"\0" + pair)
    # A float holds all 53 bits, so the quotient never rounds up to 1.
    return (int.from_bytes(digest.digest(), "big") >> 11) / 2**53
