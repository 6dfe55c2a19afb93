"""The life of a session: open, step in order, commit, expire, come back. Knows ports, not what is behind."""

from service.engine.engine import LocalEngine
from service.engine.limits import EngineLimits

__all__ = ["EngineLimits", "LocalEngine"]
