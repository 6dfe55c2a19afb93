"""A file that one side still writes while the other reads it: what lets a sender run ahead of a decoder on disk."""

from __future__ import annotations

import os
import tempfile
import threading
from typing import BinaryIO, Self

from service.core.errors import InputTooLarge, Unavailable


class GrowingFile:
    """Bytes on disk, in a file without a name (in TMPDIR): it is gone with the process, however that ends.

    Writing never waits for the reader. Reading waits for bytes, for the end, or for a fault, which ends the file where
    the reader stands; `check` tells it from the end. `append` and reads block: call them from threads; the rest returns
    at once.
    """

    def __init__(self, limit_bytes: int, what: str = "file") -> None:
        self._limit, self._what = limit_bytes, what
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._changed = threading.Condition()
        self._size = 0
        self._whole = False
        self._fault: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.fail(ValueError(f"the {self._what} is closed"))
        with self._changed:
            self._file.close()

    def append(self, data: bytes | bytearray) -> None:
        """Raises InputTooLarge beyond the limit, Unavailable when the disk does not take it."""
        if self._size + len(data) > self._limit:
            raise InputTooLarge(f"the {self._what} is larger than {self._limit} bytes", limit_bytes=self._limit)
        with self._changed:
            self.check()
            try:
                written = self._file.write(data)
                while written < len(data):
                    written += self._file.write(data[written:])
            except OSError as error:
                raise Unavailable(f"the {self._what} cannot be kept on the server's disk: {error.strerror}") from error
            self._size += len(data)
            self._changed.notify_all()

    def finish(self) -> None:
        """All is here."""
        with self._changed:
            self._whole = True
            self._changed.notify_all()

    def fail(self, fault: Exception) -> None:
        """Nothing more will come, and nothing more is read. The first fault counts."""
        with self._changed:
            self._fault = self._fault or fault
            self._changed.notify_all()

    def check(self) -> None:
        """Raises what `fail` was told."""
        if self._fault is not None:
            raise self._fault

    def read_at(self, position: int, size: int) -> bytes:
        """At least one byte, unless the file ends at `position`."""
        with self._changed:
            self._changed.wait_for(lambda: self._fault or self._whole or self._size > position)
            if self._fault is not None:
                return b""
            return os.pread(self._file.fileno(), min(size, self._size - position), position)

    def whole(self) -> BinaryIO:
        """The finished file, seekable, for the caller to close. Waits for its end; raises what `fail` was told."""
        with self._changed:
            self._changed.wait_for(lambda: self._fault or self._whole)
            self.check()
            whole = os.fdopen(os.dup(self._file.fileno()), "rb")
        whole.seek(0)
        return whole
