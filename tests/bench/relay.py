"""The least that a hop costs with gRPC's own asyncio server and channel: bytes in, bytes out, nothing known of them.

python -m tests.bench.relay TARGET      prints the port that it listens on
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

_UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Relay(grpc.GenericRpcHandler):
    """Every method is a stream both ways: on the wire a single message is one, too."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=_UNBOUNDED)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        ask = self._channel.stream_stream(handler_call_details.method)

        async def relay(_: AsyncIterator[bytes], context: Any) -> None:
            call = ask()

            async def there() -> None:
                while (message := await context.read()) is not grpc.aio.EOF:
                    await call.write(message)
                await call.done_writing()

            going = asyncio.create_task(there())
            try:
                while (message := await call.read()) is not grpc.aio.EOF:
                    await context.write(message)
            finally:
                going.cancel()
                call.cancel()

        return grpc.stream_stream_rpc_method_handler(relay)


async def main(target: str) -> None:
    server = grpc.aio.server(options=_UNBOUNDED)
    server.add_generic_rpc_handlers((Relay(target),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
