"""An HTML page of overlays beside scores: one file, pictures inside, for looking rather than counting."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s2spp.overlay import overlay

_PICTURE_WIDTH = 360
_PICTURES = 8

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:1600px}table{border-collapse:collapse}
td,th{padding:.2rem .8rem;text-align:right}td:first-child,th:first-child{text-align:left}
.strip{display:flex;flex-wrap:wrap;gap:6px}figure{margin:0}figcaption{font-size:12px;color:#555}"""


@dataclass
class SequenceReport:
    """Collects evenly spaced overlays of one sequence while it is scored."""

    name: str
    length: int
    pictures: list[tuple[int, bytes]] = field(default_factory=list)

    def wants(self, index: int) -> bool:
        every = max(1, (self.length - 1) // (_PICTURES - 1))
        return index % every == 0 and len(self.pictures) < _PICTURES + 1

    def add(self, index: int, frame: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        image = Image.fromarray(overlay(frame, labels))
        image.thumbnail((_PICTURE_WIDTH, _PICTURE_WIDTH))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=82)
        self.pictures.append((index, buffer.getvalue()))


def write_report(
    path: Path,
    title: str,
    rows: Sequence[tuple[str, float, float]],
    sequences: Iterable[SequenceReport],
    frame_j: Mapping[str, Mapping[int, float]],
) -> None:
    """`rows`: (name, J, F), the whole split first, no rows without a score; `frame_j`: J of each annotated frame, by
    sequence, of those that have a score. All fractions 0..1."""
    lines = [f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"]
    lines.append(f"<h1>{html.escape(title)}</h1>")
    if rows:
        lines.append("<table><tr><th>sequence<th>J<th>F<th>J&amp;F</tr>")
        lines += [f"<tr><td>{html.escape(n)}<td>{j:.3f}<td>{f:.3f}<td>{(j + f) / 2:.3f}</tr>" for n, j, f in rows]
        lines.append("</table>")
    for sequence in sequences:
        lines.append(f"<h2>{html.escape(sequence.name)}</h2><div class=strip>")
        for index, jpeg in sequence.pictures:
            j = frame_j.get(sequence.name, {}).get(index)
            caption = f"frame {index}" + ("" if j is None else f", J {j:.2f}")
            data = base64.b64encode(jpeg).decode()
            picture = f'<img src="data:image/jpeg;base64,{data}">'
            lines.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
        lines.append("</div>")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
