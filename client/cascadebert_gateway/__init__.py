"""Plain HTTP in front of a served cascade: JSON in, JSON out, over the asyncio client.

`cascadebert gateway` runs it; `create_app` returns it as an ASGI application. Both need the extra
`gateway`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .settings import GatewaySettings

if TYPE_CHECKING:
    from .app import create_app

__all__ = ["GatewaySettings", "create_app"]


def __getattr__(name: str) -> Any:
    # The command line reads the settings without the extra.
    if name == "create_app":
        from .app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
