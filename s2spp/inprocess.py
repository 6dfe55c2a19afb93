"""The engine in this process, behind the same `track` as the SDK's Client: for `segment`, `evaluate` and `bench`."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.bootstrap import build_engine, load_runtime
from service.client import TrackedFrame
from service.client.images import labels_of, reports_of
from service.core.errors import S2sppError, error_of_frame
from service.core.ports import Delivered
from service.core.types import Durability, EncodedImage, ImageFormat, MaskFormat, SessionId, SessionOptions
from service.settings import Settings

_Result = TypeVar("_Result")
# Enough to keep a few cores busy; more would only hold frames.
_WINDOW = 8


class InProcess:
    """`with InProcess("s2spp-light") as engine: for result in engine.track(frames, first_mask)`."""

    def __init__(self, bundle: str | None = None, threads: int = 0) -> None:
        """`bundle` None: that of the settings. Raises BundleError for a bundle that cannot be used."""
        self._settings = Settings.load(bundle=bundle, threads=threads or None)
        self._runtime = load_runtime(self._settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="s2spp-engine", daemon=True)
        self._stack = AsyncExitStack()

    @property
    def model(self) -> str:
        return self._runtime.info.name

    def __enter__(self) -> Self:
        self._thread.start()
        self._engine = self._wait(self._stack.enter_async_context(build_engine(self._settings, runtime=self._runtime)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def track(
        self, frames: Iterable[NDArray[np.uint8] | bytes], first_mask: NDArray[np.uint8] | bytes
    ) -> Generator[TrackedFrame]:
        """One result per frame, the first one's being the mask that was given. Frames: RGB uint8 [H,W,3], or an image
        file's bytes. Where they break off with an error, it is raised behind the results of those that came."""
        source = iter(frames)
        labels = labels_of(first_mask)
        # A file goes as it is: 255 is an id in an indexed PNG, and white in a raw mask of nothing else.
        mask = EncodedImage(first_mask) if isinstance(first_mask, bytes) else _raw(labels)
        first = next(source, None)
        if first is None:
            raise ValueError("there are no frames: the first one belongs to the mask")
        opened = self._wait(self._engine.open(_encoded(first), mask, SessionOptions(MaskFormat.RAW)))
        session = opened.info.session
        try:
            yield TrackedFrame(0, labels, reports_of(labels, opened.info.object_ids), 0, 0.0)
            pending: deque[Future[Delivered]] = deque()
            faults: list[Exception] = []
            for index, frame in enumerate(_until_fault(source, faults), start=1):
                pending.append(self._submit(self._segment(session, index, _encoded(frame))))
                if len(pending) >= _WINDOW:
                    yield _tracked(pending.popleft().result())
            while pending:
                yield _tracked(pending.popleft().result())
            if faults:
                raise faults[0]
        finally:
            self._wait(self._engine.delete(session))

    async def _segment(self, session: SessionId, index: int, frame: EncodedImage) -> Delivered:
        try:
            return await self._engine.segment(
                session, index, frame, durability=Durability.RELAXED, received_through=max(0, index - _WINDOW - 1)
            )
        except S2sppError as error:
            raise error_of_frame(error, index) from error

    def _submit(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return self._submit(work).result()


def _until_fault(source: Iterator[_Result], faults: list[Exception]) -> Iterator[_Result]:
    """What comes before `source` fails, and its failure into `faults`."""
    try:
        yield from source
    except Exception as error:
        faults.append(error)


def _encoded(frame: NDArray[np.uint8] | bytes) -> EncodedImage:
    if isinstance(frame, bytes):
        return EncodedImage(frame)
    return _raw(frame)


def _raw(pixels: NDArray[np.uint8]) -> EncodedImage:
    return EncodedImage(pixels.tobytes(), ImageFormat.RAW_RGB8, *pixels.shape[:2])


def _tracked(delivered: Delivered) -> TrackedFrame:
    answer = delivered.answer
    labels = np.frombuffer(answer.mask, np.uint8).reshape(answer.height, answer.width)
    return TrackedFrame(answer.frame_index, labels, answer.objects, delivered.committed_frame, answer.compute_ms)
