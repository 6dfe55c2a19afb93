"""The observer of an engine that nobody watches."""

from __future__ import annotations

from service.core.ports import CommitResult, FrameTimes


class SilentObserver:
    """An EngineObserver that keeps nothing."""

    def session_opened(self) -> None:
        pass

    def session_restored(self) -> None:
        pass

    def session_resumed(self) -> None:
        pass

    def session_parked(self) -> None:
        pass

    def session_expired(self) -> None:
        pass

    def session_deleted(self) -> None:
        pass

    def sessions_in_memory(self, count: int) -> None:
        pass

    def frame_answered(self, times: FrameTimes) -> None:
        pass

    def frame_failed(self, reason: str) -> None:
        pass

    def frame_dropped(self) -> None:
        pass

    def commit_ended(self, seconds: float, result: CommitResult, age_s: float | None) -> None:
        pass
