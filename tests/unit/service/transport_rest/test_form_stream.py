"""Forms in pieces of any size, and forms that are none."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.core.errors import InputTooLarge, InvalidOption, S2sppError, UnsupportedMedia
from service.transport.rest.form_stream import form_events, read_head
from tests.fakes.videos import in_pieces

TYPE = "multipart/form-data; boundary=x"
VIDEO = b"\r\n--x is no boundary\r\n-" * 40 + b"\r"
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="mask"; filename="m"\r\nContent-Type: image/png\r\n\r\nMASK\r\n'
    b"--x\r\nCONTENT-DISPOSITION: form-data; name=video\r\n\r\n" + VIDEO.replace(b"--x", b"--y") + b"\r\n--x--\r\n"
)


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for piece in in_pieces(data, size):
        yield piece


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
async def test_pieces_of_any_size_make_the_same_form(size: int) -> None:
    events = form_events(TYPE, pieces(FORM, size))
    head = await read_head(events, ("mask",), "video", 100)
    assert head == {"mask": (b"MASK", "image/png")}
    rest = [event async for event in events]
    assert b"".join(rest) == VIDEO.replace(b"--x", b"--y")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content_type", "data", "error", "told"),
    [
        ("text/plain", FORM, UnsupportedMedia, "send multipart/form-data"),
        ("", FORM, UnsupportedMedia, "send multipart/form-data"),
        (TYPE, b"nothing of the kind", InvalidOption, "multipart body"),
        (TYPE, b"", InvalidOption, "before its last boundary"),
        (TYPE, FORM[:90], InvalidOption, "before its last boundary"),
        (TYPE, b"--x\r\nContent-Type: image/png\r\n\r\nMASK\r\n--x--\r\n", InvalidOption, "no name"),
        (TYPE, b"--x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n\r\n--x--\r\n", InvalidOption, "multipart body"),
        (TYPE, FORM.replace(b"MASK", b"M" * 101), InputTooLarge, "part 'mask' is larger than 100 bytes"),
        (TYPE, FORM.replace(b"video", b"movie"), InvalidOption, "'movie' is not known; the parts are mask and"),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
async def test_what_is_no_form_is_told(
    content_type: str, data: bytes, error: type[S2sppError], told: str, size: int
) -> None:
    with pytest.raises(error, match=told):
        await read_head(form_events(content_type, pieces(data, size)), ("mask",), "video", 100)
