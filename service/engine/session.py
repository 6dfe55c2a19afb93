"""One session and the rules of its frame indices, outbox and commits. Nothing here waits or does I/O.

Frames pass three marks: `next_frame` (accepted below it), `settled_frame` (answered, in order, state kept)
and `committed_frame` (stored). The outbox holds what is accepted and not acknowledged. Every settling raises
`revision`; a commit covers all revisions up to that of its snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from service.core.errors import FrameAcknowledged, FrameGap, InvalidOption, Overloaded, SessionRolledBack
from service.core.state import HostRows, State
from service.core.types import (
    Failure,
    Flow,
    ModelInfo,
    SessionId,
    SessionInfo,
    SessionOptions,
    Snapshot,
)
from service.engine.objects import Change, Followed
from service.engine.turns import Ahead, Entry, Outcome, Turn, overtaken

LAST_INDEX = 2**62


@dataclass
class _Stake:
    """A frame that is not stored. `committed_before`: the last index that the store has, as long as it has not this
    one. `revision`: None while the frame is under way."""

    committed_before: int
    revision: int | None = None


class Session:
    """A session in memory: what a stored snapshot says, and what came since."""

    def __init__(self, snapshot: Snapshot, size: tuple[int, int], now: float) -> None:
        """`size`: the model's grid [h,w] for the session's frames."""
        self._origin = replace(snapshot, state=State(HostRows(), HostRows()), outbox=(), changes=())
        self.size = size
        self.last_used = now
        self.paused = False
        self.ahead = Ahead()
        self.next_frame = snapshot.next_frame
        self.received_through = snapshot.received_through
        self.outbox = {kept.frame_index: Entry(kept.frame_index, kept) for kept in snapshot.outbox}
        self.settled_frame = snapshot.next_frame - 1
        self.may_be_lost = 0
        """So many of the frames that come next a crash may have taken, whose caller has waited or has their masks."""
        self.revision = 0
        self.committed_revision = 0
        self.objects_revision = 0
        """When objects, and with them constant states, were last changed."""
        self._settled = Followed(snapshot.object_ids, snapshot.state)
        self._tail = Turn.over(self._settled)
        # Since the frame sent last, in their order.
        self.changes = [Change(digest, made=True) for digest in snapshot.changes]
        self._changing_now = 0
        # Realtime: the newest frame that is ready to be stepped; those before it are not worth a step any more.
        self.newest_ready = 0
        # Of every accepted frame that is not stored, ascending by index.
        self._uncommitted: dict[int, _Stake] = {}

    @property
    def id(self) -> SessionId:
        return self._origin.session

    @property
    def options(self) -> SessionOptions:
        return self._origin.options

    @property
    def epoch(self) -> int:
        return self._origin.epoch

    @property
    def object_ids(self) -> tuple[int, ...]:
        return self._settled.object_ids

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the session's frames."""
        return self._origin.height, self._origin.width

    @property
    def realtime(self) -> bool:
        return self.options.flow is Flow.REALTIME

    @property
    def busy(self) -> bool:
        """A frame or a change of objects is under way."""
        return self.settled_frame < self.next_frame - 1 or self._changing_now > 0

    @property
    def committed(self) -> bool:
        return self.committed_revision == self.revision

    @property
    def frames_at_stake(self) -> int:
        """Answered frames that a crash would lose now."""
        return sum(stake.revision is not None for stake in self._uncommitted.values())

    @property
    def committed_frame(self) -> int:
        return next((stake.committed_before for stake in self._uncommitted.values()), self.next_frame - 1)

    def find(self, index: int, received_through: int | None, window: int) -> Entry | None:
        """The entry that answers frame `index`, or None when the frame is to be accepted now.

        Raises:
            InvalidOption: no index that travels (int64 everywhere).
            FrameGap: beyond the next one, unless the session is a realtime one, whose caller may skip.
            FrameAcknowledged: its answer was taken.
            Overloaded: the window is full.
        """
        if index > LAST_INDEX:
            raise InvalidOption(f"frame indices go up to {LAST_INDEX}, and {index} came")
        if index > self.next_frame and not self.realtime:
            raise FrameGap(
                f"frame {index} came, but frame {self.next_frame} is expected next; send that one",
                expected=self.next_frame,
            )
        self._acknowledge(index - 1 if received_through is None else received_through)
        if index <= self.received_through:
            raise FrameAcknowledged(
                f"frame {index} was answered and its answer taken before (through {self.received_through}); "
                f"frame {self.next_frame} is expected next",
                expected=self.next_frame,
            )
        entry = self.outbox.get(index)
        if entry is None and index < self.next_frame:
            skipped = overtaken(index)  # by the caller itself
            return Entry(index, Failure(index, skipped.reason, skipped.message, {}))
        if entry is None and len(self.outbox) >= window:
            raise Overloaded(
                f"{len(self.outbox)} frames of this session are under way or not acknowledged, the most that "
                "may be; take their masks, and say so with received_through",
                retry_after_s=1.0,
            )
        if entry is not None and isinstance(entry.outcome, Failure) and index == self.next_frame - 1:
            # The caller may prefer to send the bad frame's index again, as long as nothing was built on it.
            return entry if self.changes else None
        return entry

    def refuse_if_rolled_back(self, told_committed: int) -> None:
        """Raises SessionRolledBack where the caller was told that more is stored than there is."""
        if told_committed >= self.next_frame:
            raise SessionRolledBack(
                f"frame {told_committed} was stored, but the store has this session as of frame {self.next_frame - 1} "
                "only: it has lost writes. Go on from there, or open a new session",
                frame_index=self.next_frame - 1,
            )

    def takes_precedence(self) -> bool:
        """The caller says that it had this frame's answer, or waits for it since before a crash. That is true of a few
        frames at most: each is counted, and who says it of more gets no precedence."""
        if not self.may_be_lost:
            return False
        self.may_be_lost -= 1
        return True

    def unread(self, received_through: int) -> tuple[Outcome, ...]:
        """The answers after `received_through`, as far as they are made; none where a crash took more than was stored:
        masks are taken ahead of it. Raises FrameAcknowledged: some were acknowledged, and are gone."""
        received_through = min(received_through, self.settled_frame)
        if received_through < self.received_through:
            raise FrameAcknowledged(
                f"answers after frame {received_through} are asked for, but those through {self.received_through} were "
                "acknowledged before",
                expected=self.received_through + 1,
            )
        self._acknowledge(received_through)
        made = [entry.outcome for index, entry in self.outbox.items() if received_through < index <= self.settled_frame]
        answers = tuple(outcome for outcome in made if outcome is not None)
        if not self.realtime and len(answers) < self.settled_frame - received_through:
            raise SessionRolledBack(
                f"answers after frame {received_through} are asked for, and not all of them are there: the store has "
                f"lost writes. Go on after frame {self.settled_frame}, or open a new session",
                frame_index=self.settled_frame,
            )
        return answers

    def accept(self, index: int) -> tuple[Entry, Turn, Turn]:
        """Register frame `index` (as `find` allowed): its entry, the turn before it, and its own."""
        retried = self.outbox.get(index)
        changes_before = self.changes if retried is None else retried.changes_before
        entry = Entry(index, changes_before=changes_before, instead_of=retried, next_before=self.next_frame)
        before, turn = self._tail, Turn.waiting()
        # A failure that is tried anew is forgotten; it had not moved the state.
        self.settled_frame = min(self.settled_frame, index - 1)
        self.outbox[index] = entry
        known = self._uncommitted.get(index)
        self._uncommitted[index] = _Stake(known.committed_before if known else self.next_frame - 1)
        self.next_frame = index + 1
        self.changes = []
        self._tail = turn
        return entry, before, turn

    def find_change(self, index: int | None, ordinal: int | None, digest: str, most: int) -> Change | None:
        """The change that was made already, or None when it is to be accepted now. `index` None: after whichever frame
        was last. `ordinal`: it is so manieth change after that frame, from 1; None: the same as the last is that one.

        Raises:
            FrameGap: it belongs after a frame, or a change, that has not come.
            FrameAcknowledged: frames have come since.
            InvalidOption: the change of this ordinal was another.
            Overloaded: `most` were made after this frame.
        """
        last = self.next_frame - 1
        if index is not None and index > last:
            raise FrameGap(
                f"objects are changed after frame {index}, but frame {self.next_frame} is expected next; send that one",
                expected=self.next_frame,
            )
        if index is not None and index < last:
            if (made := self._made_after(index, ordinal, digest)) is not None:
                return made
            raise FrameAcknowledged(
                f"frame {last} has come since frame {index}; change the objects after the frame sent last",
                expected=self.next_frame,
            )
        count = len(self.changes)
        if ordinal is not None and not 1 <= ordinal <= count + 1:
            raise FrameGap(
                f"change {ordinal} came, but change {count + 1} after frame {last} is expected next; send that one",
                expected=self.next_frame,
                expected_ordinal=count + 1,
            )
        place = count if ordinal is None else ordinal
        if 1 <= place <= count and self.changes[place - 1].digest == digest:
            return self.changes[place - 1]
        if ordinal is not None and ordinal <= count:
            raise InvalidOption(f"change {ordinal} after frame {last} was another one; count on")
        if count >= most:
            raise Overloaded(f"{count} changes were made after frame {last}; send the next frame", retry_after_s=1.0)
        return None

    def _made_after(self, index: int, ordinal: int | None, digest: str) -> Change | None:
        """A change whose answer was lost is sent again, and the frame behind it may have come already."""
        made = next((entry.changes_before for entry in self.outbox.values() if entry.comes_after == index), [])
        place = len(made) if ordinal is None else ordinal
        found = made[place - 1] if 1 <= place <= len(made) else None
        return found if found is not None and found.digest == digest else None

    def accept_change(self, digest: str) -> tuple[Change, Turn, Turn]:
        """Register a change (as `find_change` allowed): itself, the turn before it, and its own."""
        before, turn, change = self._tail, Turn.waiting(), Change(digest, siblings=self.changes)
        self.changes.append(change)
        self._changing_now += 1
        self._tail = turn
        return change, before, turn

    def settle_change(self, change: Change, followed: Followed) -> None:
        self.revision += 1
        change.revision = self.objects_revision = self.revision
        change.made = True
        self._settled = followed

    def end_change(self, change: Change) -> None:
        """Whatever became of it. One that was not made may be sent again."""
        self._changing_now -= 1
        change.withdraw()

    def settle(self, entry: Entry, outcome: Outcome, followed: Followed) -> None:
        """The frame after `settled_frame` has its outcome; `followed` is what is followed after it."""
        self.revision += 1
        entry.outcome, entry.revision = outcome, self.revision
        self.settled_frame, self._settled = entry.index, followed
        self._uncommitted[entry.index].revision = self.revision

    def roll_back(self, entry: Entry, before: Turn) -> None:
        """Forget an accepted frame and those behind it, as if they had not come. Once is enough."""
        if self.outbox.get(entry.index) is not entry:
            return
        stake = self._uncommitted[entry.index]
        for index in [index for index in self.outbox if index >= entry.index]:
            self.outbox.pop(index)
            self._uncommitted.pop(index, None)
        self.next_frame = entry.next_before
        self.newest_ready = min(self.newest_ready, entry.index - 1)
        self._tail = before
        if entry.instead_of is None:
            self.changes = entry.changes_before
            return
        # What was tried anew failed again: that it was bad is what stands, and what the store may have.
        self.outbox[entry.index] = entry.instead_of
        self.settled_frame, self.changes = entry.index, []
        self.revision += 1
        self._uncommitted[entry.index] = _Stake(stake.committed_before, self.revision)

    def commit(self, revision: int) -> None:
        """A snapshot taken at `revision` is stored."""
        self.committed_revision = max(self.committed_revision, revision)
        self._uncommitted = {
            index: stake
            for index, stake in self._uncommitted.items()
            if stake.revision is None or stake.revision > self.committed_revision
        }

    def snapshot(self) -> Snapshot:
        """The session at `revision`, without the frames that are under way."""
        return replace(
            self._origin,
            next_frame=self.settled_frame + 1,
            received_through=self.received_through,
            object_ids=self._settled.object_ids,
            state=self._settled.state,
            changes=tuple(change.digest for change in self._changes_settled() if change.made),
            outbox=tuple(
                entry.outcome
                for entry in self.outbox.values()
                if entry.outcome is not None and entry.index <= self.settled_frame
            ),
        )

    def describe(self, model: ModelInfo, expires_in_s: float) -> SessionInfo:
        height, width = self.frame_size
        return SessionInfo(
            session=self.id,
            model=model.name,
            model_digest=self._origin.model_digest,
            height=height,
            width=width,
            object_ids=self.object_ids,
            next_frame=self.next_frame,
            committed_frame=self.committed_frame,
            expires_in_s=expires_in_s,
            epoch=self.epoch,
        )

    def _changes_settled(self) -> list[Change]:
        """Those after `settled_frame`, which the first frame under way has behind it."""
        return next((e.changes_before for e in self.outbox.values() if e.index > self.settled_frame), self.changes)

    def _acknowledge(self, through: int) -> None:
        """An answer that is not made yet cannot have been taken: calls may overlap."""
        through = min(through, self.settled_frame)
        for index in [index for index in self.outbox if index <= through]:
            del self.outbox[index]
        self.received_through = max(self.received_through, through)
