"""A cascade in the client over servers of single members: asked over HTTP, gated here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.errors import CheckFailed
from cascadebert_build.extras import needs_extra
from cascadebert_core.gate import Decision, decide
from cascadebert_core.policy import Policy
from cascadebert_core.tokenization import Text

from .classifier import PATH, ClassifierKind, Member, classify_payload, probabilities_of_response
from .client_side import Ask
from .python_cascade import Answer
from .server import Peer

_TIMEOUT_S = 60.0
# The least probability whose logarithm is taken.
_TINY = np.finfo(np.float32).tiny


@asynccontextmanager
async def asking_classifiers(
    kind: ClassifierKind, members: Sequence[Member], peers: Sequence[Peer], policy: Policy
) -> AsyncGenerator[Ask, None]:
    """Yield the cascade in the client, at the policy's default operating point.

    Args:
        kind: The servers' program.
        members: One for every stage, small to large.
        peers: Their servers.
        policy: The policy with temperatures, signals, thresholds and labels.
    """
    with needs_extra("bench"):
        import aiohttp

    # A connection for each request in flight, kept open. The limit of 100 would be a queue.
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def ask(text: Text) -> Answer:
            for i, (member, peer) in enumerate(zip(members, peers, strict=True)):
                try:
                    async with session.post(
                        peer.url + PATH, json=classify_payload([str(text)])
                    ) as response:
                        if response.status != 200:
                            said = (await response.text())[:200]
                            raise CheckFailed(f"{kind.name} answered {response.status}: {said}")
                        found = await response.json(content_type=None)
                except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
                    raise CheckFailed(f"{kind.name} gave no answer: {exc!r}") from exc
                decision = gate(policy, i, probabilities_of_response(kind, member, found))
                if i == len(members) - 1 or decision.exits[0]:
                    label = policy.labels[int(decision.probabilities[0].argmax())]
                    return Answer(label, float(decision.confidence[0]), i)
            raise AssertionError("the last member answers")

        yield ask


def gate(policy: Policy, stage: int, probabilities: NDArray[np.float32]) -> Decision:
    """Apply a stage's temperature and threshold to a server's probabilities.

    The logarithms of probabilities are the logits less a constant, so that division by the
    temperature gives the same probabilities as for the logits. A signal that depends on the
    constant (energy) cannot be had from probabilities.

    Args:
        policy: Gives temperature, signal and threshold; the last stage has none.
        stage: The stage, 0-based.
        probabilities: Of shape (n, n_labels), in the order of the policy's labels.
    """
    of = policy.stages[stage]
    known = policy.thresholds[stage] if stage < len(policy.thresholds) else 0.0
    limits = np.array(known, dtype=np.float32)
    logits = np.log(np.maximum(probabilities, _TINY))
    return decide(logits, of.temperature, limits[None, :] if limits.ndim else np.float32(limits),
                  of.signal, policy.task)  # fmt: skip
