"""Which version of a cascade a request asks, where its traffic is shared among versions.

Triton has no router: a call that names no version gets the newest that is loaded. So the client
chooses.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ._checks import is_real
from ._requests import Utf8Row
from .errors import InvalidRequest

BY_REQUEST = "request"
BY_TEXT = "text"
BY = (BY_REQUEST, BY_TEXT)
"""What is drawn for: each request at random, or each text, which then always has one version."""

# What a sum of shares such as 0.7 + 0.2 + 0.1 may be above 1 in floating point.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one request that ask the same version.

    Attributes:
        version: That they ask; the empty string lets the server choose.
        indices: Of the rows, ascending.
    """

    version: str
    indices: Sequence[int]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Shares of the traffic, by version.

    Attributes:
        rest: Version that gets what the shares leave; the empty string lets the server choose.
        shares: Of the other versions, each above 0, together at most 1.
        by_text: Whether equal rows always ask the same version.
        draw: Draws from [0, 1).
    """

    rest: str = ""
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    by_text: bool = False
    draw: Callable[[], float] = field(default=random.random, repr=False, compare=False)

    def parts(self, rows: Sequence[Utf8Row]) -> list[Part]:
        """Return which rows of a request ask which version; every row is in one part."""
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

        Shares lie side by side from 0 on, the smallest version first. So a share that is raised
        keeps the places that it had, where it is the only one.
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
    """Return checked shares.

    Args:
        shares: By version, each from 0 to 1, together at most 1; None for no shares.
        rest: The version that gets what is left.
        by: One of `BY`.

    Raises:
        InvalidRequest: A share or a version is none, or `by` is something else.
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
            f"the shares of traffic are {total:g} together: they may be 1 at most; what is left "
            "goes to model_version, or to the version that the server chooses"
        )
    # In one order for all clients, whatever theirs is.
    kept = {version: checked[version] for version in sorted(checked, key=int)}
    return Traffic(rest, {v: s for v, s in kept.items() if s > 0}, by == BY_TEXT)


def _place_of(row: Utf8Row) -> float:
    """Return a place in [0, 1) that is always the same for a row, and uniform over rows."""
    text, pair = row
    digest = hashlib.blake2b(text, digest_size=8)
    if pair is not None:
        digest.update(b"\0" + pair)  # no text has a NUL character
    # 53 bits, all of which a float holds: the quotient never rounds up to 1.
    return (int.from_bytes(digest.digest(), "big") >> 11) / 2**53
