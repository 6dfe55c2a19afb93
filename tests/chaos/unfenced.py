"""A test build of the worker: another worker's taking a session keeps nobody from saving it."""

from __future__ import annotations

from s2spp import cli
from service.store import redis_store


def main() -> None:
    fenced = redis_store._SAVE
    redis_store._SAVE = fenced.replace("return 'lost ' .. worker", "epoch = epoch")
    assert fenced != redis_store._SAVE
    cli.main()


if __name__ == "__main__":
    main()
