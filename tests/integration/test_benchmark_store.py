"""What `s2spp bench` tells of the store is what Redis received and sent."""

from __future__ import annotations

import io
from collections import defaultdict
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console
from rich.progress import Progress

from s2spp.benchmark.material import Material
from s2spp.benchmark.store import COMMIT, OPENING, RESUME, measure_store
from service.bootstrap import load_runtime
from service.core.types import Snapshot
from service.settings import Settings
from service.store import codec
from tests.integration.tiny_bundle import write_tiny_bundle

# Names, numbers and Redis' own marks beside the fields.
_BESIDE = 1200


async def test_bytes_are_those_of_what_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[tuple[bool, int], list[int]] = defaultdict(list)
    encode = codec.encode

    def counted(snapshot: Snapshot, *, constant: bool) -> dict[str, bytes]:
        fields = encode(snapshot, constant=constant)
        sizes[constant, len(snapshot.object_ids)].append(sum(map(len, fields.values())))
        return fields

    monkeypatch.setattr(codec, "encode", counted)
    settings = Settings.load(bundle=str(write_tiny_bundle(tmp_path / "tiny")))
    progress = Progress(console=Console(file=io.StringIO()))
    material = Material.rendered(6, (64, 96))
    section = await measure_store(settings, load_runtime(settings), (1, 3), material, 0.1, progress)
    rows = {(row.what, row.objects): row for row in section.rows}
    assert set(rows) == {(what, count) for what in (OPENING, COMMIT, RESUME) for count in (1, 3)}
    for (what, objects), row in rows.items():
        assert row.count >= 4 and 0 < row.ms_p50 <= row.ms_p95
        if what != RESUME:
            stored = median(sizes[what == OPENING, objects])
            assert stored < row.bytes_p50 < stored + _BESIDE, (what, objects)
    for objects in (1, 3):
        assert rows[COMMIT, objects].count > 2 * rows[OPENING, objects].count
        # A resume brings the constant state too, which only the opening sent.
        assert rows[RESUME, objects].bytes_p50 > rows[COMMIT, objects].bytes_p50
    assert section.commit_every == settings.commit_every
