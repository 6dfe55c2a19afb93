"""How a session begins: read, initialised and stored, before anybody hears of it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import replace

from service.core.ports import Opened, SessionStore, StepQueue
from service.core.types import EncodedImage, ModelInfo, SessionOptions, Snapshot
from service.engine.faults import told
from service.engine.idempotency import Keyed, OpeningKeys
from service.engine.limits import EngineLimits
from service.engine.pixels import read_opening
from service.engine.residence import Residence
from service.engine.tasks import Tasks


class Opener:
    """Opens the sessions of one engine, those with an idempotency key once."""

    def __init__(
        self,
        queue: StepQueue,
        store: SessionStore,
        threads: Executor,
        info: ModelInfo,
        limits: EngineLimits,
        residence: Residence,
        tasks: Tasks,
    ) -> None:
        self._queue = queue
        self._store = store
        self._threads = threads
        self._info = info
        self._limits = limits
        self._residence = residence
        self._tasks = tasks
        self._keys = OpeningKeys(store)

    async def open(
        self, frame: EncodedImage, mask: EncodedImage, options: SessionOptions, client: str, key: str | None
    ) -> Opened:
        """Raises Overloaded before any work is done."""
        if key is None:
            return await self._permitted(frame, mask, options, client, None)
        with self._keys.hold(key):
            loop = asyncio.get_running_loop()
            keyed = await loop.run_in_executor(self._threads, Keyed.of, key, frame, mask, options)
            replay = await self._keys.told(keyed)
            if replay is not None:
                await self._residence.use(replay.info.session)
                return replay
            return await self._permitted(frame, mask, options, client, keyed)

    async def _permitted(
        self, frame: EncodedImage, mask: EncodedImage, options: SessionOptions, client: str, keyed: Keyed | None
    ) -> Opened:
        self._tasks.refuse_if_closed()
        with self._residence.permit(client):
            return await self._tasks.own(self._open(frame, mask, options, client, keyed))

    async def _open(
        self, frame: EncodedImage, mask: EncodedImage, options: SessionOptions, client: str, keyed: Keyed | None
    ) -> Opened:
        loop = asyncio.get_running_loop()
        try:
            opening = await loop.run_in_executor(self._threads, read_opening, frame, mask, self._info, self._limits)
            state = await self._queue.initialise(opening.frame, opening.masks)
            snapshot = Snapshot(
                session=await self._keys.session(keyed),
                model_digest=self._info.digest,
                options=options,
                height=opening.height,
                width=opening.width,
                object_ids=opening.object_ids,
                next_frame=1,
                received_through=0,
                state=state,
                outbox=(),
                client=client,
            )
            epoch = await self._store.save(snapshot, self._limits.idle_timeout_s, constant=True)
        except Exception as error:
            raise told(error, "opening a session") from error
        resident = self._residence.open(replace(snapshot, epoch=epoch))
        opened = Opened(self._residence.describe(resident), state.nbytes)
        await self._keys.tell(keyed, opened)
        return opened
