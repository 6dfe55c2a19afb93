"""Senseless requests to REST and the WebSocket."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any
from urllib.parse import quote

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.chaos.mutate import damaged, damaged_picture, noise
from tests.chaos.server_faults import Faults

_TYPES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "application/octet-stream",
    "application/x-rgb8",
    "text/plain",
    "",
    "x",
)
_NUMBERS = ("0", "1", "48", "80", "255", "256", "-1", "99999999999999999999", "1e3", "x", "")
_JSON = ('{"mask_format": "rle"}', '{"mask_format": "raw"}', "{}", "[]", "null", "1e999", '{"a": {"b": []}}', "")
_COMMANDS = (
    '{"received_through": 0}',
    '{"received_through": 999999999}',
    '{"draw": {}}',
    '{"draw": {"object_id": 3, "ordinal": 1, "frame_index": 0}}',
    '{"remove": {"object_id": 1}}',
    '{"remove": {"object_id": 2, "ordinal": 7}}',
)
_END = "the end"
_LAST = f'{{"{_END}": 1}}'
"""No command: it is refused in its turn, when all before it has been answered."""
_TAKEN_OVER = 4409
_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
_BOUNDARY = "fuzzfuzzfuzz"


class RestFuzzer:
    """One session is there to be maltreated; those that a request opens by luck are deleted at once."""

    def __init__(self, client: httpx.AsyncClient, pictures: Sequence[bytes], mask: bytes, faults: Faults) -> None:
        self._client = client
        self._pictures = pictures
        self._mask = mask
        self._faults = faults
        self._victim = ""
        self.ways = (self.frame, self.form, self.broken_form, self.path, self.web_socket)

    async def frame(self, random: Random) -> None:
        path, index = await self._standing()
        index_text = str(index) if random.random() < 0.8 else random.choice(_NUMBERS)
        kind = random.choice(_TYPES)
        await self._send(
            "POST",
            f"{path}/frames/{quote(index_text)}",
            content=damaged_picture(random, self._pictures),
            headers={"Content-Type": kind} if kind else {},
            params=self._query(random),
        )

    async def form(self, random: Random) -> None:
        """A frame, a mask and options, of which some are good."""
        files: list[tuple[str, tuple[str | None, bytes | str, str]]] = []
        for name, good in (("frame", random.choice(self._pictures)), ("mask", self._mask)):
            data = good if random.random() < 0.5 else damaged_picture(random, [*self._pictures, self._mask])
            for _ in range(random.choice((1, 1, 1, 1, 0, 2))):
                files.append((name, (random.choice(("f", "", None)), data, random.choice(_TYPES[:5]))))
        if random.random() < 0.5:
            text = random.choice(_JSON).encode()
            files.append(
                ("options", (None, text if random.random() < 0.5 else damaged(random, text), "application/json"))
            )
        headers = {"Idempotency-Key": random.choice(("k", "a b", "x" * 300, "{}"))} if random.random() < 0.2 else {}
        method, path = await self._form_target(random)
        await self._send(method, path, files=files, headers=headers, params=self._query(random))

    async def broken_form(self, random: Random) -> None:
        parts = [("frame", self._pictures[0]), ("mask", self._mask), ("options", _JSON[0].encode())]
        body = b"".join(
            b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\nContent-Type: image/png\r\n\r\n%s\r\n'
            % (_BOUNDARY.encode(), name.encode(), data)
            for name, data in parts
        )
        body += f"--{_BOUNDARY}--\r\n".encode()
        # The head of a part is where parsing can go wrong; hit by chance it would hardly ever be.
        head = body.index(b"\r\n\r\n", random.choice((0, body.index(b'name="mask"'))))
        body = damaged(random, body[: head + 4]) + body[head + 4 :] if random.random() < 0.6 else damaged(random, body)
        kind = random.choice((f"multipart/form-data; boundary={_BOUNDARY}", "multipart/form-data", "application/json"))
        method, path = await self._form_target(random)
        await self._send(method, path, content=body, headers={"Content-Type": kind})

    async def path(self, random: Random) -> None:
        """Any method on any path, damaged or not."""
        victim, index = await self._standing()
        good = random.choice(
            (
                "/v1/sessions",
                f"{victim}/frames/{index}",
                f"{victim}/objects/1/mask",
                f"{victim}/objects/9",
                "/v1/models",
            )
        )
        raw = damaged(random, good.encode()) if random.random() < 0.8 else good.encode()
        method = random.choice(_METHODS)
        if method == "DELETE" and raw.decode(errors="replace").rstrip("/") == victim:
            return
        await self._send(method, "/" + quote(raw.lstrip(b"/"), safe="/?&=%"), content=noise(random))

    async def web_socket(self, random: Random) -> None:
        victim, _ = await self._standing()
        query = "&".join(f"{name}={quote(value)}" for name, value in self._query(random).items())
        url = f"ws{str(self._client.base_url).removeprefix('http').rstrip('/')}{victim}/stream?{query}"
        try:
            async with connect(url, max_size=None) as socket:
                for _ in range(random.randrange(1, 6)):
                    text = random.random() < 0.3
                    command = random.choice((*_JSON, *_COMMANDS))
                    await socket.send(command if text else damaged_picture(random, self._pictures))
                await socket.send(_LAST)
                while (said := await socket.recv()) and not (isinstance(said, str) and _END in said):
                    if isinstance(said, str):
                        self._faults.judge_text(said)
        except InvalidStatus as error:
            self._faults.answers[f"HTTP {error.response.status_code}"] += 1
            if error.response.status_code >= 500:
                raise OSError(f"the handshake was answered {error.response.status_code}") from error
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code == _TAKEN_OVER:
                return  # by another of these streams
            raise OSError(f"the server closed the socket: {error}") from error

    async def _send(self, method: str, path: str, **request: Any) -> None:
        answer = await self._client.request(method, path, **request)
        self._faults.judge_response(answer)
        if answer.status_code == 201:
            await self._client.delete(answer.headers["location"])

    async def _form_target(self, random: Random) -> tuple[str, str]:
        victim, _ = await self._standing()
        return random.choice(
            (
                ("POST", "/v1/sessions"),
                ("POST", f"{victim}/objects"),
                ("PUT", f"{victim}/objects/{random.randrange(4)}/mask"),
            )
        )

    async def _standing(self) -> tuple[str, int]:
        """Path of the session to be maltreated, and the frame that it expects."""
        if self._victim:
            answer = await self._client.get(self._victim)
            if answer.status_code == 200:
                return self._victim, answer.json()["next_frame"]
        opened = await self._client.post("/v1/sessions", files={"frame": self._pictures[0], "mask": self._mask})
        self._faults.judge_response(opened)
        opened.raise_for_status()
        self._victim = opened.headers["location"]
        return self._victim, 1

    @staticmethod
    def _query(random: Random) -> dict[str, str]:
        names = ("height", "width", "received_through", "durability", "frame_index")
        return {name: random.choice((*_NUMBERS, "relaxed")) for name in names if random.random() < 0.15}
