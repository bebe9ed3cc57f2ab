"""Calls of a model whose messages stay bytes until somebody asks what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import InferResult, service_pb2

from cascadebert_client._requests import server_timeout_s
from cascadebert_client.transport import channel_arguments
from cascadebert_core.contract import TEXT

pb: Any = service_pb2
_METHOD = "/inference.GRPCInferenceService/ModelInfer"


class RawModel:
    """One model, on several connections.

    tritonclient takes most of a millisecond of CPU for a request and its answer: on the cores of
    the server, a generator would measure itself.
    """

    def __init__(
        self, url: str, model: str, outputs: Sequence[str], parameters: Mapping[str, str], n: int
    ) -> None:
        """Connect.

        Args:
            url, model: where to.
            outputs: that are asked for.
            parameters: of every request.
            n: connections.
        """
        self._template = pb.ModelInferRequest(model_name=model)
        for output in outputs:
            self._template.outputs.add(name=output)
        for name, value in parameters.items():
            self._template.parameters[name].string_param = value
        self._channels = [
            grpc.aio.insecure_channel(url, options=channel_arguments(url)) for _ in range(n)
        ]
        # Neither serializer nor deserializer: bytes in, bytes out.
        self._calls = [channel.unary_unary(_METHOD) for channel in self._channels]

    def request(self, texts: Sequence[str], timeout_s: float) -> bytes:
        """A request with a text in every row, and a deadline as the client's requests have it."""
        message = pb.ModelInferRequest()
        message.CopyFrom(self._template)
        message.parameters["timeout"].int64_param = max(1, int(server_timeout_s(timeout_s) * 1e6))
        message.inputs.add(name=TEXT, datatype="BYTES", shape=[len(texts), 1])
        encoded = [text.encode() for text in texts]
        message.raw_input_contents.append(
            b"".join(len(text).to_bytes(4, "little") + text for text in encoded)
        )
        return message.SerializeToString()

    async def call(self, number: int, request: bytes, timeout_s: float) -> bytes:
        """The answer to a request.

        Args:
            number: of the request; connections take turns.
            request: of `request`.
            timeout_s: the caller's own deadline.

        Raises:
            grpc.RpcError: it failed.
        """
        return await self._calls[number % len(self._calls)](request, timeout=timeout_s)

    async def close(self) -> None:
        """Hang up."""
        for channel in self._channels:
            await channel.close()


def result_of(answer: bytes) -> InferResult:
    """What an answer says."""
    return InferResult(pb.ModelInferResponse.FromString(answer))
