"""Good bytes made bad: at random, or knowing the format so well that the damage lies deeper than the checksums."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random

_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def damaged(random: Random, data: bytes) -> bytes:
    """One to eight edits: bits, bytes, stretches gone, doubled, exchanged or made up."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        at = random.randrange(len(out) + 1)
        end = min(len(out), at + random.choice((1, 2, 4, 16, 200)))
        match random.randrange(7):
            case 0 if at < len(out):
                out[at] ^= 1 << random.randrange(8)
            case 1:
                out[at:end] = random.randbytes(end - at)
            case 2:
                del out[at:end]
            case 3:
                out[at:at] = out[at:end]
            case 4:
                out[at:at] = random.randbytes(random.choice((1, 5, 50)))
            case 5:
                out[at : at + 4] = random.choice(_EDGES).to_bytes(4, random.choice(("big", "little")))
            case 6:
                del out[at:]
    return bytes(out)


def noise(random: Random) -> bytes:
    return random.randbytes(random.choice((0, 1, 2, 9, 100, 3000)))


def damaged_png(random: Random, png: bytes) -> bytes:
    """Chunks changed, left out, doubled or made up, with right checksums: a decoder gets to see them."""
    chunks, at = [], 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        if kind == b"IDAT" and chunks[-1][0] == kind:
            chunks[-1] = kind, chunks[-1][1] + body  # one stream, however it is cut
        else:
            chunks.append((kind, body))
        at += 12 + length
    number = random.randrange(len(chunks))
    kind, body = chunks[number]
    match random.randrange(6):
        case 0 if kind == b"IDAT":
            chunks[number] = kind, zlib.compress(damaged(random, zlib.decompress(body)))
        case 1:
            del chunks[number]
        case 2:
            chunks.insert(random.randrange(len(chunks)), chunks[number])
        case 3:
            name = random.choice((b"PLTE", b"tRNS", b"eXIf", b"gAMA", b"iCCP", b"tEXt", b"acTL", b"fdAT", b"abCd"))
            chunks.insert(random.randrange(1, len(chunks)), (name, noise(random)))
        case 4:
            header = bytearray(chunks[0][1])
            header[random.randrange(8, 13)] = random.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
            chunks[0] = chunks[0][0], bytes(header)
        case _:
            chunks[number] = kind, damaged(random, body)
    return png[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def resized_jpeg(random: Random, jpeg: bytes) -> bytes:
    """Another size, or number of channels, in the frame header."""
    at = next((at for marker in (b"\xff\xc0", b"\xff\xc2") if (at := jpeg.find(marker)) > 0), None)
    if at is None:
        return damaged(random, jpeg)
    out = bytearray(jpeg)
    if random.random() < 0.7:
        out[at + 5 : at + 9] = struct.pack(">HH", *(random.choice((0, 1, 7, 89, 2000, 65535)) for _ in range(2)))
    else:
        out[at + 9] = random.choice((0, 1, 2, 3, 4, 255))
    return bytes(out)


def damaged_picture(random: Random, pictures: Sequence[bytes]) -> bytes:
    """Of one of the good `pictures` (JPEG, PNG, WebP)."""
    good = random.choice(pictures)
    ways: list[Callable[[], bytes]] = [lambda: noise(random), lambda: damaged(random, good), lambda: good]
    if good.startswith(b"\x89PNG"):
        ways += [lambda: damaged_png(random, good)] * 2
    elif good.startswith(b"\xff\xd8"):
        ways += [lambda: resized_jpeg(random, good)]
    return random.choice(ways)()
