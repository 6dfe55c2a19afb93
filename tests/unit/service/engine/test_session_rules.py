"""Rules of one session that need no engine to be seen."""

from __future__ import annotations

from service.core.state import HostRows, State
from service.core.types import Failure, SessionOptions, Snapshot, new_session_id
from service.engine.objects import Followed
from service.engine.session import Session

_NOTHING = State(HostRows(), HostRows())


def session() -> Session:
    return Session(
        Snapshot(
            session=new_session_id(),
            model_digest="sha256:fa4e",
            options=SessionOptions(),
            height=4,
            width=4,
            object_ids=(1,),
            next_frame=1,
            received_through=0,
            state=_NOTHING,
            outbox=(),
        ),
        (4, 4),
        0.0,
    )


async def test_a_frame_that_was_forgotten_cannot_take_back_those_that_came_anew() -> None:
    rules = session()
    first, before_first, _ = rules.accept(1)
    second, before_second, _ = rules.accept(2)
    rules.roll_back(first, before_first)
    assert rules.next_frame == 1 and not rules.busy
    rules.accept(1)
    anew, _, _ = rules.accept(2)
    rules.roll_back(second, before_second)  # its own failure comes late
    assert rules.next_frame == 3 and rules.outbox[2] is anew


async def test_a_commit_covers_what_was_settled_before_it() -> None:
    rules = session()
    entries = [rules.accept(index)[0] for index in (1, 2, 3)]
    for entry in entries[:2]:
        rules.settle(entry, Failure(entry.index, "INVALID_IMAGE", "bad", {}), Followed((1,), _NOTHING))
    assert (rules.revision, rules.committed_frame, rules.frames_at_stake) == (2, 0, 2)
    rules.commit(1)
    assert (rules.committed_frame, rules.frames_at_stake, rules.committed) == (1, 1, False)
    rules.commit(2)
    assert (rules.committed_frame, rules.frames_at_stake, rules.committed) == (2, 0, True)
    assert rules.snapshot().next_frame == 3
    rules.commit(1)  # an earlier save that ends late
    assert rules.committed_frame == 2
