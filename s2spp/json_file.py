"""What `--json FILE` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def write_json(path: Path, table: Mapping[str, object]) -> None:
    """Makes the folder where there is none: minutes of measuring are not lost to a missing one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=2) + "\n")
