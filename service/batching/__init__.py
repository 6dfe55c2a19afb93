"""Many sessions, one runtime: whatever is ready when the runtime is free becomes one batch."""

from service.batching.queue import BatchingQueue

__all__ = ["BatchingQueue"]
