"""An HTML page of overlays beside scores: one file, pictures inside, for looking rather than counting."""

from __future__ import annotations

import base64
import html
import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.data.sequence import Sequence as Video
from s2spp.overlay import overlay

_PICTURE_WIDTH = 360
_PICTURES = 8
_WORST = 3

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:1600px}table{border-collapse:collapse}
td,th{padding:.2rem .8rem;text-align:right}td:first-child,th:first-child{text-align:left}
h3{font-size:14px;margin:.5rem 0}
.strip{display:flex;flex-wrap:wrap;gap:6px}figure{margin:0}figcaption{font-size:12px;color:#555}"""


@dataclass
class SequenceReport:
    """Keeps the masks of one sequence, compressed, while it is scored: which moments are worth a picture is known when
    all of them have their J."""

    video: Video
    masks: list[bytes] = field(default_factory=list)

    def add(self, labels: NDArray[np.uint8]) -> None:
        """The next frame's labels [H,W]."""
        self.shape = labels.shape
        self.masks.append(zlib.compress(labels.tobytes(), 1))

    def picture(self, index: int) -> bytes:
        """Frame `index` with its mask, as a small JPEG."""
        labels = np.frombuffer(zlib.decompress(self.masks[index]), np.uint8).reshape(self.shape)
        image = Image.fromarray(overlay(self.video.frame(index), labels))
        image.thumbnail((_PICTURE_WIDTH, _PICTURE_WIDTH))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=82)
        return buffer.getvalue()


def evenly(length: int) -> list[int]:
    """Frames from the first to the last."""
    return sorted({round(place) for place in np.linspace(0, length - 1, _PICTURES)})


def worst_moments(by_frame: Mapping[int, float], length: int) -> list[int]:
    """The frames with the lowest J, none of them within a tenth of the video of another: else they would all show one
    moment."""
    found: list[int] = []
    for index in sorted(by_frame, key=lambda frame: by_frame[frame]):
        if len(found) < _WORST and all(abs(index - other) > length / 10 for other in found):
            found.append(index)
    return found


def write_report(
    path: Path,
    title: str,
    rows: Sequence[tuple[str, float, float]],
    sequences: Iterable[SequenceReport],
    frame_j: Mapping[str, Mapping[int, float]],
) -> None:
    """`rows`: (name, J, F), the whole split first, no rows without a score; `frame_j`: J of each annotated frame, by
    sequence, of those that have a score. All fractions 0..1. The sequences with the lowest J come first, those without
    a score last."""
    lines = [f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"]
    lines.append(f"<h1>{html.escape(title)}</h1>")
    if rows:
        lines.append("<table><tr><th>sequence<th>J<th>F<th>J&amp;F</tr>")
        lines += [f"<tr><td>{html.escape(n)}<td>{j:.3f}<td>{f:.3f}<td>{(j + f) / 2:.3f}</tr>" for n, j, f in rows]
        lines.append("</table>")
    score = {name: j for name, j, _ in rows}
    for sequence in sorted(sequences, key=lambda one: score.get(one.video.name, 2.0)):
        name, length = sequence.video.name, len(sequence.masks)
        by_frame = frame_j.get(name, {})
        lines.append(f"<h2>{html.escape(name)}{f', J {score[name]:.3f}' if name in score else ''}</h2>")
        if worst := worst_moments(by_frame, length):
            lines += ["<h3>where it is worst</h3>", _strip(sequence, worst, by_frame), "<h3>from first to last</h3>"]
        lines.append(_strip(sequence, evenly(length), by_frame))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _strip(sequence: SequenceReport, indices: Sequence[int], by_frame: Mapping[int, float]) -> str:
    figures = []
    for index in indices:
        caption = f"frame {index}" + (f", J {by_frame[index]:.2f}" if index in by_frame else "")
        data = base64.b64encode(sequence.picture(index)).decode()
        figures.append(f'<figure><img src="data:image/jpeg;base64,{data}"><figcaption>{caption}</figcaption></figure>')
    return f"<div class=strip>{''.join(figures)}</div>"
