"""The price of the gate and the tokenizer: a one-member cascade over its stage called directly.

The gate takes text, tokenises it, asks the stage and decides. A client of the stage itself
tokenises first and sends token ids.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cascadebert_core.tokenization import Encoder, Text

from ...tools.latency import latency_of
from ...tools.request_data import rows_of_fullest_bucket, write_texts, write_tokens
from ..bench import TritonSide
from ..contender import Contender
from ..workload import encoders_of_workload

SECTION = "gate"
GATE, STAGE, TOKENISING = "one-member cascade", "stage, token ids", "tokenising"
_TOKENISED_REQUESTS = 500


def measure_gate_price(side: TritonSide) -> None:
    """Measure the small member with and without the gate, one request at a time."""
    bench, workload = side.bench, side.workload
    stage = workload.policy.stages[0]
    encoder = encoders_of_workload(workload)[0]
    for rows in bench.plan.gate_rows:
        texts: Sequence[Text] = workload.corpus.texts
        if rows > 1:  # perf_analyzer needs rows of one shape
            _, texts = rows_of_fullest_bucket(texts, encoder, stage)
        folder = bench.data(workload.name)
        text_data = write_texts(folder / f"gate-texts-{rows}.json", texts)
        token_data = write_tokens(folder / f"gate-tokens-{rows}.json", texts, encoder, stage)
        contenders = [
            side.member(GATE, 0, data=text_data),
            # Its answers are logits, so nothing is expected of them.
            side.contender(STAGE, stage.model, expected=None, data=token_data),
            Contender(
                TOKENISING,
                "one thread",
                lambda load, texts=texts: _tokenise(encoder, texts, load.rows),
                warm_up=False,
            ),
        ]
        bench.take_turns(SECTION, workload, contenders, bench.closed(1, rows=rows))


def _tokenise(encoder: Encoder, texts: Sequence[Text], rows: int) -> dict[str, Any]:
    """Time how long this process tokenises the rows of one request."""
    # As in the server, one request's rows are tokenised on one thread.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    taken_ms: list[float] = []
    for start in range(min(_TOKENISED_REQUESTS, len(texts))):
        request = [texts[(start + i) % len(texts)] for i in range(rows)]
        began_s = time.perf_counter()
        encoder.encode(request)
        taken_ms.append((time.perf_counter() - began_s) * 1000)
    rate_rps = 1000 * len(taken_ms) / sum(taken_ms)
    return {"throughput_rps": rate_rps, "all": asdict(latency_of(taken_ms))}
