"""A gateway's view of the workers: who is alive, who has room, who has a session."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

from service.core.cancelling import cancelled
from service.core.errors import ModelMismatch, Overloaded, S2sppError, Unavailable
from service.core.registry import LEASE_S, Owner, WorkerRegistry, WorkerState
from service.core.types import SessionId

_log = logging.getLogger(__name__)
_EVERY_S = 0.25
_RETRY_AFTER_S = 1.0
# A session that lost its worker has frames to be computed again, before all others and while its caller waits: where
# many such ones have gone lately, one more waits longer than where many are at their usual pace. A gateway does not
# know how many the others have sent there: so they count much.
_RECOVERY_S = 2.0
_RECOVERY_COUNTS = 4
# The last worker of a model may be starting anew: for so long it is waited for. With the lease of one that died it is
# less than callers are kept waiting, so that they are told that the model is gone, where it is.
_REMEMBERED_S = 5.0
# Without an answer for so long the store was away.
_AWAY_S = 1.0
_NONE: Mapping[str, int] = {}


class Directory:
    """Asks the registry every quarter of a second. While the store is away, and until workers had time to tell it of
    themselves again, the last view stays: who is dead then is told by broken connections."""

    def __init__(self, registry: WorkerRegistry, gone: Callable[[WorkerState], None]) -> None:
        """`gone`: told of each worker that is alive no more."""
        self._registry = registry
        self._gone = gone
        self._workers: dict[str, WorkerState] = {}
        self._placed: Counter[str] = Counter()  # since the worker last told how many it has
        self._recovering: deque[tuple[float, str]] = deque()  # when, and where
        self._broken: dict[str, tuple[WorkerState, Unavailable]] = {}
        self._began = self._answered_at = time.monotonic()
        self._complete_at = 0.0  # before, who is alive may not have been heard of yet
        self._without = False  # a worker that is there to stay
        self._met: set[str] = set()
        self._served: dict[str, float] = {}  # models, and when they were seen last
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises Unavailable."""
        await self.refresh()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        await cancelled(self._watching)

    @property
    def alive(self) -> list[WorkerState]:
        return list(self._workers.values())

    async def refresh(self) -> None:
        """Raises Unavailable."""
        now = {state.worker: state for state in await self._registry.workers()}
        last, self._answered_at = self._answered_at, time.monotonic()
        if self._answered_at - last > _AWAY_S:
            self._complete_at = self._answered_at + LEASE_S
        if self._answered_at < self._complete_at:
            now = self._workers | now
        before, self._workers = self._workers, now
        # A worker that could not be reached may be back once it says something new.
        self._broken = {name: broken for name, broken in self._broken.items() if now.get(name) == broken[0]}
        # A worker that has said nothing new does not know of what was placed since.
        self._placed = Counter({n: count for n, count in self._placed.items() if n in now and now[n] == before.get(n)})
        self._met &= now.keys()
        self._served |= {state.model_digest: time.monotonic() for state in now.values()}
        self._served = {digest: at for digest, at in self._served.items() if time.monotonic() - at < _REMEMBERED_S}
        for name, state in before.items():
            if name not in now:
                if state.draining:
                    _log.info("worker %s at %s has ended; workers now: %d", name, state.address, len(self.reached))
                else:
                    _log.warning(
                        "worker %s at %s is alive no more; workers now: %d", name, state.address, len(self.reached)
                    )
                self._gone(state)
        without, self._without = self._without, all(state.draining for state in now.values())
        if self._without and not without:
            _log.warning(
                "%s: callers are refused until one joins (`s2spp worker` with the REDIS_URL of this gateway)",
                self._none(),
            )

    @property
    def strangers(self) -> list[WorkerState]:
        """Alive, to stay, and not yet `met`."""
        return [state for state in self.alive if state.worker not in self._met and not state.draining]

    @property
    def reached(self) -> list[WorkerState]:
        """Alive, to stay, and `met`."""
        return [state for state in self.alive if state.worker in self._met and not state.draining]

    def met(self, worker: WorkerState) -> None:
        """It was reached from here once. One that tells an address which is none is alive, and no place to go."""
        self._met.add(worker.worker)

    def failed(self, worker: WorkerState, problem: S2sppError) -> None:
        """It could not be reached, cannot work, or takes no more: it is passed over until it tells something new."""
        if isinstance(problem, Unavailable):
            if worker.worker not in self._broken:
                _log.info("worker %s at %s gets nothing for now: %s", worker.worker, worker.address, problem.fault)
            self._broken[worker.worker] = self._workers.get(worker.worker, worker), problem
        elif isinstance(problem, Overloaded):
            self._placed[worker.worker] += worker.capacity

    def spare(self, worker: WorkerState) -> None:
        """What was placed there last came to nothing, and takes no room."""
        self._placed[worker.worker] = max(0, self._placed[worker.worker] - 1)

    async def owner(self, session: SessionId) -> Owner | None:
        """Raises Unavailable."""
        return await self._registry.owner(session)

    async def home(self, session: SessionId, left: str | None = None) -> WorkerState:
        """The worker that has the session, unless it has handed it over (`left`); else the one that should take it.
        Raises Unavailable, ModelMismatch, Overloaded."""
        owner = await self.owner(session)
        if owner is not None and owner.worker != left:
            worker = self._workers.get(owner.worker)
            if worker is not None and not worker.draining and worker.worker not in self._broken:
                return worker
            if worker is None or worker.worker in self._broken:
                chosen = self.place(owner.model_digest, self._recoveries())
                self._recovering.append((time.monotonic(), chosen.worker))
                return chosen
        if owner is None:
            return min(self._willing(), key=self._load)  # nobody's: any worker can say so
        return self.place(owner.model_digest, left=left)

    def place(
        self, model_digest: str | None = None, more: Mapping[str, int] = _NONE, left: str | None = None
    ) -> WorkerState:
        """The worker with the fewest sessions in use, and `more` that it counts for, among those with room and this
        model; `left` only if there is no other. It is counted as one more. Raises Unavailable, ModelMismatch,
        Overloaded."""
        fit = self._fit(model_digest)
        others = [state for state in fit if state.worker != left]
        chosen = min(others or fit, key=lambda state: self._load(state, more))
        self._placed[chosen.worker] += 1
        return chosen

    def _load(self, state: WorkerState, more: Mapping[str, int] = _NONE) -> tuple[int, int, str]:
        in_use = state.busy + self._placed[state.worker] + more.get(state.worker, 0)
        return in_use, state.sessions, state.worker

    def _recoveries(self) -> Mapping[str, int]:
        while self._recovering and self._recovering[0][0] < time.monotonic() - _RECOVERY_S:
            self._recovering.popleft()
        counts = Counter(worker for _, worker in self._recovering)
        return {worker: _RECOVERY_COUNTS * count for worker, count in counts.items()}

    def _willing(self) -> list[WorkerState]:
        willing = [state for state in self.reached if state.worker not in self._broken]
        if not willing:
            raise Unavailable(f"{self._none()}; try again in a moment")
        return willing

    def _none(self) -> str:
        """Why no worker can take a session."""
        if not self._workers:
            return "no worker is alive"
        if all(state.draining for state in self.alive):
            return "every worker is draining"
        return next(
            (f"no worker can take a session now ({problem.fault})" for _, problem in self._broken.values()),
            "no worker has been reached yet",
        )

    def _fit(self, model_digest: str | None) -> list[WorkerState]:
        fit = self._willing()
        if model_digest is not None:
            served = {state.model_digest for state in fit}
            fit = [state for state in fit if state.model_digest == model_digest]
            new_here = time.monotonic() - self._began < _REMEMBERED_S
            if not fit and (new_here or model_digest in self._served):
                raise Unavailable(f"no worker with model {model_digest} can take a session now; try again in a moment")
            if not fit:
                raise ModelMismatch(
                    f"the session belongs to model {model_digest}, and the workers have {', '.join(sorted(served))}; "
                    "open a new session, or serve that model",
                    session_model=model_digest,
                )
        room = [state for state in fit if state.busy + self._placed[state.worker] < state.capacity]
        if not room:
            raise Overloaded("every worker is full; try again shortly", retry_after_s=_RETRY_AFTER_S)
        return room

    def refuse_if_none(self) -> None:
        """Raises Unavailable."""
        self._willing()

    def refuse_if_full(self) -> None:
        """Raises Unavailable, Overloaded."""
        self._fit(None)

    async def _watch(self) -> None:
        away = False
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.refresh()
                if away:
                    _log.info("the registry answers again")
                away = False
            except Unavailable:
                if not away:
                    _log.warning("the registry cannot be asked which workers there are; the last view stays")
                away = True
            except Exception:
                _log.exception("what the registry says of the workers cannot be used; the last view stays")
