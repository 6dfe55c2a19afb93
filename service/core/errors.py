"""Everything that can go wrong for a caller, as one tree. Transports map CLASSES to statuses, each in one table.

S2sppError
 +-- InvalidInput            the caller sent something unusable; nothing changed
 |    +-- InvalidImage       INVALID_IMAGE         not an image, or damaged
 |    +-- UnsupportedMedia   UNSUPPORTED_MEDIA     an image, but of a kind that is not read
 |    +-- InputTooLarge      INPUT_TOO_LARGE       more bytes or pixels than the limits allow
 |    +-- InvalidMask        INVALID_MASK          empty, of another size than its frame, or too many objects
 |    +-- InvalidOption      INVALID_OPTION        an option or identifier that makes no sense
 |    +-- IdempotencyKeyReused IDEMPOTENCY_KEY_REUSED  the key came before, with another request
 +-- IdempotencyKeyInUse    IDEMPOTENCY_KEY_IN_USE    the first request with this key is under way
 +-- SessionUnknown          SESSION_UNKNOWN
 +-- SessionExpired          SESSION_EXPIRED
 +-- FrameAcknowledged       FRAME_ACKNOWLEDGED    answered, and its answer taken, before: safe to ignore
 +-- FrameGap                FRAME_GAP             names the index that is expected
 +-- FrameDropped            FRAME_DROPPED         realtime: a newer frame had come; the state did not step
 +-- OwnershipLost           OWNERSHIP_LOST        a newer stream or another worker has the session
 +-- SessionRolledBack       SESSION_ROLLED_BACK   the store lost frames that had been acknowledged
 +-- SnapshotDamaged         SNAPSHOT_DAMAGED      what the store holds of the session cannot be used
 +-- ModelMismatch           MODEL_MISMATCH        the session belongs to another model digest
 +-- Overloaded              OVERLOADED            full; says when to try again
 +-- Unavailable             UNAVAILABLE           the store or a worker is away; try again
"""

from __future__ import annotations

from typing import ClassVar


class S2sppError(Exception):
    """Base of every error a caller may see. `reason` is the stable machine-readable word of the public contract."""

    reason: ClassVar[str] = "INTERNAL"
    retry_after_s: float | None = None
    """When the same request may well succeed; None: not by waiting."""
    ends_stream = False
    """The stream whose frame or change it is told of has come to its end; to go on, the session is resumed."""

    def __init__(self, message: str, **metadata: str | int | float) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = {key: str(value) for key, value in metadata.items()}

    @property
    def fault(self) -> str:
        """The message without what follows a semicolon, advice for callers: for a server's own log."""
        return self.message.partition(";")[0]


class InvalidInput(S2sppError):
    reason = "INVALID_INPUT"


class InvalidImage(InvalidInput):
    reason = "INVALID_IMAGE"


class UnsupportedMedia(InvalidInput):
    reason = "UNSUPPORTED_MEDIA"


class InputTooLarge(InvalidInput):
    reason = "INPUT_TOO_LARGE"


class InvalidMask(InvalidInput):
    reason = "INVALID_MASK"


class InvalidOption(InvalidInput):
    reason = "INVALID_OPTION"


class IdempotencyKeyReused(InvalidInput):
    reason = "IDEMPOTENCY_KEY_REUSED"


class IdempotencyKeyInUse(S2sppError):
    reason = "IDEMPOTENCY_KEY_IN_USE"
    retry_after_s = 1.0


class SessionUnknown(S2sppError):
    reason = "SESSION_UNKNOWN"


class SessionExpired(S2sppError):
    reason = "SESSION_EXPIRED"


class FrameAcknowledged(S2sppError):
    reason = "FRAME_ACKNOWLEDGED"


class FrameGap(S2sppError):
    reason = "FRAME_GAP"


class FrameDropped(S2sppError):
    reason = "FRAME_DROPPED"


class OwnershipLost(S2sppError):
    reason = "OWNERSHIP_LOST"


class SessionRolledBack(S2sppError):
    reason = "SESSION_ROLLED_BACK"


class SnapshotDamaged(S2sppError):
    reason = "SNAPSHOT_DAMAGED"


class ModelMismatch(S2sppError):
    reason = "MODEL_MISMATCH"


class Overloaded(S2sppError):
    """`limit`="client" in the metadata: there is room, only not for this client."""

    reason = "OVERLOADED"

    def __init__(self, message: str, retry_after_s: float, **metadata: str | int | float) -> None:
        super().__init__(message, retry_after_s=retry_after_s, **metadata)
        self.retry_after_s = retry_after_s


class Unavailable(S2sppError):
    reason = "UNAVAILABLE"
    retry_after_s = 1.0


def _all_errors(root: type[S2sppError]) -> dict[str, type[S2sppError]]:
    found = {root.reason: root}
    for child in root.__subclasses__():
        found |= _all_errors(child)
    return found


def error_of_frame(error: S2sppError, frame_index: int) -> S2sppError:
    """The same, saying which frame it was, in words and as `metadata["frame_index"]`."""
    metadata = error.metadata | {"frame_index": str(frame_index)}
    return error_from_reason(error.reason, f"frame {frame_index}: {error.message}", metadata)


def error_from_reason(reason: str, message: str, metadata: dict[str, str]) -> S2sppError:
    """Rebuild an error from its reason word: how the SDK and a restored outbox get the class back."""
    if reason == Overloaded.reason:
        others = {key: value for key, value in metadata.items() if key != "retry_after_s"}
        return Overloaded(message, float(metadata.get("retry_after_s", "1")), **others)
    return _all_errors(S2sppError).get(reason, S2sppError)(message, **metadata)
