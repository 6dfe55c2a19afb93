"""multipart/form-data, read part by part as it arrives: what is last may be as long as it likes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.core.errors import InputTooLarge, InvalidOption, UnsupportedMedia

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MAX_HEADER_BYTES = 16 * 1024


@dataclass(frozen=True)
class PartHead:
    """A part begins; the bytes up to the next one are its own."""

    name: str
    content_type: str


async def form_events(content_type: str, chunks: AsyncIterator[bytes]) -> AsyncGenerator[PartHead | bytearray, None]:
    """Each part's head, then its bytes as they come. The generator ends with the form, not with the body.

    Raises:
        UnsupportedMedia: another content type.
        InvalidOption: not a form, or one that ends early.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise UnsupportedMedia(f"content type {content_type!r} is not read here; send multipart/form-data")
    parsed = _Parsed()
    try:
        parser = MultipartParser(options.get(b"boundary", b""), parsed.callbacks())
        async for chunk in chunks:
            parser.write(chunk)
            for event in parsed.events:
                yield event
            parsed.events.clear()
    except FormParserError as error:
        raise InvalidOption(f"multipart body: {error}") from error
    if not parsed.ended:
        raise InvalidOption("multipart body: it ends before its last boundary; send all of it")


async def read_head(
    events: AsyncIterator[PartHead | bytearray], before: tuple[str, ...], last: str, max_part_bytes: int
) -> dict[str, tuple[bytes, str]]:
    """The parts in front of the part `last`: name -> (bytes, content type). `events` stands at its bytes then.

    Raises:
        InvalidOption: a part that is not one of `before`, comes twice, or behind `last`; no part `last`.
        InputTooLarge: a part has more than `max_part_bytes`.
    """
    found: dict[str, tuple[bytearray, str]] = {}
    name, order = "", f"the parts are {', '.join(before)} and, behind them, {last}"
    async for event in events:
        if isinstance(event, bytearray):
            data = found[name][0]
            if len(data) + len(event) > max_part_bytes:
                raise InputTooLarge(f"part {name!r} is larger than {max_part_bytes} bytes", limit_bytes=max_part_bytes)
            data.extend(event)
        elif event.name == last:
            return {name: (bytes(data), content_type) for name, (data, content_type) in found.items()}
        elif event.name not in before or event.name in found:
            wrong = "is there more than once" if event.name in found else "is not known"
            raise InvalidOption(f"part {event.name!r} {wrong}; {order}")
        else:
            name = event.name
            found[name] = (bytearray(), event.content_type)
    raise InvalidOption(f"part {last!r} is missing; {order}")


class _Parsed:
    """What the parser has called back about and nobody has taken yet."""

    def __init__(self) -> None:
        self.events: list[PartHead | bytearray] = []
        self.ended = False
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = bytearray(), bytearray()
        self._header_bytes = 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._headers, self._header_bytes = {}, 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._grow(self._field, data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._grow(self._value, data[start:end])

    def _grow(self, text: bytearray, more: bytes) -> None:
        self._header_bytes += len(more)
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise InvalidOption(f"multipart body: a part's headers have more than {_MAX_HEADER_BYTES} bytes")
        text.extend(more)

    def _header_end(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise InvalidOption("multipart body: a part has no name")
        name = options[b"name"].decode("utf-8", "replace")
        self.events.append(PartHead(name, self._headers.get(b"content-type", b"").decode("latin-1")))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        # The parser cuts wherever a boundary could have begun.
        if self.events and isinstance(self.events[-1], bytearray):
            self.events[-1] += data[start:end]
        else:
            self.events.append(bytearray(data[start:end]))

    def _end(self) -> None:
        self.ended = True
