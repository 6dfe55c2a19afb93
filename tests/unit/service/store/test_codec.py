"""Snapshots survive the codec bit for bit, and damaged ones never pass for snapshots."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load, save

from service.core.errors import SnapshotDamaged
from service.core.state import HostRows, State
from service.core.types import Answer, Failure, MaskFormat, ObjectReport, SessionId, SessionOptions, Snapshot
from service.store import codec
from service.store.codec import decode, encode
from tests.fakes.store import assert_same, make_snapshot

_INDEX = st.integers(-1, 1 << 40)
_SIDE = st.integers(1, 65535)
_TEXT = st.text(max_size=20)
_REPORTS = st.builds(
    ObjectReport,
    object_id=st.integers(1, 255),
    area=_INDEX,
    box=st.tuples(_SIDE, _SIDE, _SIDE, _SIDE),
    confidence=st.floats(0, 1),
    visible=st.booleans(),
)
_ENTRIES = st.one_of(
    st.builds(
        Answer,
        frame_index=_INDEX,
        mask=st.binary(max_size=64),
        mask_format=st.sampled_from(MaskFormat),
        height=_SIDE,
        width=_SIDE,
        objects=st.lists(_REPORTS, max_size=3).map(tuple),
    ),
    st.builds(
        Failure,
        frame_index=_INDEX,
        reason=_TEXT,
        message=_TEXT,
        metadata=st.dictionaries(_TEXT, _TEXT, max_size=2),
    ),
)


@st.composite
def _snapshots(draw: st.DrawFn) -> Snapshot:
    objects = draw(st.lists(st.integers(1, 255), min_size=1, max_size=3, unique=True))

    def states() -> HostRows:
        names = draw(st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), max_size=3, unique=True))
        made = HostRows()
        for name in names:
            shape = (len(objects), *draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)))
            # float16 from raw bits: subnormals, infinities and NaNs of every payload
            bits = draw(arrays.arrays(np.uint16, shape))
            made[name] = draw(st.sampled_from([bits.view(np.float16), bits.astype(np.float32), bits.astype(np.int64)]))
        return made

    return Snapshot(
        session=SessionId("s" * 32),
        model_digest=draw(_TEXT.filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))),
        options=SessionOptions(draw(st.sampled_from(MaskFormat))),
        height=draw(_SIDE),
        width=draw(_SIDE),
        object_ids=tuple(objects),
        next_frame=draw(_INDEX),
        received_through=draw(_INDEX),
        state=State(states(), states()),
        outbox=tuple(draw(st.lists(_ENTRIES, max_size=3, unique_by=lambda entry: entry.frame_index))),
        changes=tuple(draw(st.lists(st.text(max_size=5), max_size=2))),
    )


@given(_snapshots())
def test_round_trip_is_exact(snapshot: Snapshot) -> None:
    assert_same(decode(snapshot.session, encode(snapshot, constant=True)), snapshot)


@given(st.data())
def test_a_flipped_or_cut_field_is_an_error_that_names_it(data: st.DataObject) -> None:
    snapshot = make_snapshot(object_ids=(2,))
    fields = encode(snapshot, constant=True)
    field = data.draw(st.sampled_from(sorted(fields)))
    damaged = bytearray(fields[field])
    if data.draw(st.booleans()):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    _assert_damaged(snapshot, {**fields, field: bytes(damaged)}, field)


@given(st.binary(max_size=200), st.sampled_from(["meta", "object:1:state", "object:1:constant", "answer:6"]))
def test_foreign_bytes_are_an_error(noise: bytes, field: str) -> None:
    snapshot = make_snapshot()
    fields = encode(snapshot, constant=True)
    _assert_damaged(snapshot, {**fields, field: noise}, field)
    header = len(noise).to_bytes(8, "little") + noise
    _assert_damaged(snapshot, {**fields, field: header}, field)


def test_any_missing_field_is_an_error() -> None:
    snapshot = make_snapshot()
    fields = encode(snapshot, constant=True)
    assert len(fields) == 1 + 2 + 2 + 2
    for field in fields:
        _assert_damaged(snapshot, {name: data for name, data in fields.items() if name != field}, field)


def test_fields_of_two_saves_do_not_mix() -> None:
    one = make_snapshot(next_frame=8)
    two = make_snapshot(one.session, next_frame=9)
    old, new = encode(one, constant=True), encode(two, constant=True)
    for field in ("object:1:state", "answer:7"):
        with pytest.raises(SnapshotDamaged, match="another save"):
            decode(one.session, {**new, field: old[field]})


def test_another_session_object_or_model_is_an_error() -> None:
    snapshot = make_snapshot()
    fields = encode(snapshot, constant=True)
    _assert_damaged(snapshot, encode(make_snapshot(), constant=True), "meta")
    _assert_damaged(snapshot, {**fields, "object:1:constant": fields["object:7:constant"]}, "object:1:constant")
    retrained = encode(replace(snapshot, model_digest="sha256:11"), constant=True)
    _assert_damaged(snapshot, {**fields, "object:1:constant": retrained["object:1:constant"]}, "object:1:constant")


def test_another_format_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = make_snapshot()
    with monkeypatch.context() as future:
        future.setattr(codec, "FORMAT", "s2spp-snapshot/3")
        fields = encode(snapshot, constant=True)
    with pytest.raises(SnapshotDamaged, match=r"'s2spp-snapshot/3', this server reads 's2spp-snapshot/2'"):
        decode(snapshot.session, fields)


def test_a_state_cannot_be_passed_off_under_another_type() -> None:
    snapshot = make_snapshot()
    fields = encode(snapshot, constant=True)
    data = fields["object:1:state"]
    _assert_damaged(snapshot, {**fields, "object:1:state": data.replace(b"<f2", b"<i2")}, "object:1:state")


def test_fields_are_plain_safetensors() -> None:
    snapshot = make_snapshot()
    fields = encode(snapshot, constant=True)
    assert set(load(fields["object:7:state"])) == {"packed"}
    assert load(fields["answer:6"])["mask"].tobytes() == snapshot.outbox[0].mask
    for data in fields.values():
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        assert header["__metadata__"]["model_digest"] == snapshot.model_digest


def test_well_sealed_nonsense_is_an_error() -> None:
    """Fields of the right seal and the wrong content: what a careless tool could write."""
    snapshot = make_snapshot()
    fields = encode(snapshot, constant=True)
    seal = (snapshot.session, snapshot.model_digest)
    for content in (None, [], {}, {"object_ids": 3}, {"object_ids": [[]], "checksums": None, "outbox": []}):
        sealed = codec._seal(*seal, "meta", {}, content)
        with pytest.raises(SnapshotDamaged):
            decode(snapshot.session, {**fields, "meta": sealed})
    without_metadata = save({"rnn1_h": np.zeros(3, np.float16)})
    _assert_damaged(snapshot, {**fields, "object:1:state": without_metadata}, "object:1:state")


@pytest.mark.parametrize(
    "broken",
    [
        replace(make_snapshot(), object_ids=()),
        replace(make_snapshot(), object_ids=(1, 2, 3)),
        replace(make_snapshot(), outbox=make_snapshot().outbox[:1] * 2),
    ],
    ids=["no objects", "rows that no object has", "two answers to one frame"],
)
def test_a_snapshot_that_contradicts_itself_is_not_written(broken: Snapshot) -> None:
    with pytest.raises(ValueError):
        encode(broken, constant=True)


def _assert_damaged(snapshot: Snapshot, fields: dict[str, bytes], field: str) -> None:
    with pytest.raises(SnapshotDamaged) as caught:
        decode(snapshot.session, fields)
    assert caught.value.metadata == {"session": snapshot.session, "field": field}
    assert snapshot.session in caught.value.message
