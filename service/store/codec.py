"""Snapshots as bytes: safe to read from anyone, and never mistaken for something they are not.

A session becomes the fields of one Redis hash:

    meta                     options, frame size, object ids, indices, the checksums of what was saved with it
    object:<id>:state        the object's changing state tensors
    object:<id>:constant     its constant ones, written once
    answer:<index>           one entry of the outbox, an Answer or a Failure

Each field is a safetensors file, never pickle; states in it are packed (see packing). Its metadata names the format,
the session, the field and the model digest, and has a SHA-256 of the whole file (its own 64 digits read as zeros): a
field that is damaged, foreign or in another's place is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from service.core.errors import SnapshotDamaged
from service.core.state import HostRows, Rows, State, Tensors
from service.core.types import (
    Answer,
    Failure,
    Flow,
    MaskFormat,
    ObjectReport,
    SessionId,
    SessionOptions,
    Snapshot,
)
from service.store.packing import Layout, pack, unpack

FORMAT = "s2spp-snapshot/2"
META = "meta"
_BLANK = "0" * 64
# What parsing hostile bytes may raise; anything else would be a mistake of ours.
_UNREADABLE = (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


def damaged(session: str, field: str, problem: str) -> SnapshotDamaged:
    """The error for a stored field that cannot be used."""
    return SnapshotDamaged(
        f"the stored snapshot of session {session} cannot be used: its field {field!r} {problem}. "
        "Restore the store from a backup, or open a new session",
        session=session,
        field=field,
    )


def state_field(object_id: int) -> str:
    return f"object:{object_id}:state"


def constant_field(object_id: int) -> str:
    return f"object:{object_id}:constant"


def answer_field(frame_index: int) -> str:
    return f"answer:{frame_index}"


def encode(snapshot: Snapshot, *, constant: bool) -> dict[str, bytes]:
    """Field name -> bytes. `constant` False leaves the constant states out: the store has them.
    Raises ValueError for a snapshot that contradicts itself."""
    _check(snapshot)

    def seal(field: str, tensors: Tensors, content: object) -> bytes:
        return _seal(snapshot.session, snapshot.model_digest, field, tensors, content)

    saved: dict[str, bytes] = {}
    for object_id, packed in _packed(snapshot, snapshot.state.changing):
        field = state_field(object_id)
        saved[field] = seal(field, *packed)
    for entry in snapshot.outbox:
        field = answer_field(entry.frame_index)
        saved[field] = seal(field, *_entry_to_parts(entry))
    meta = {
        "options": asdict(snapshot.options),
        "height": snapshot.height,
        "width": snapshot.width,
        "object_ids": snapshot.object_ids,
        "next_frame": snapshot.next_frame,
        "received_through": snapshot.received_through,
        "outbox": [answer_field(entry.frame_index) for entry in snapshot.outbox],
        "changes": snapshot.changes,
        "client": snapshot.client,
        "checksums": {field: _checksum_of(data) for field, data in saved.items()},
    }
    saved[META] = seal(META, {}, meta)
    if constant:
        for object_id, packed in _packed(snapshot, snapshot.state.constant):
            field = constant_field(object_id)
            saved[field] = seal(field, *packed)
    return saved


def decode(session: SessionId, fields: Mapping[str, bytes]) -> Snapshot:
    """The snapshot, bit for bit. Raises SnapshotDamaged, naming the field."""
    head = _open(session, META, fields)
    meta = head.content

    def opened(field: str, *, saved_with_meta: bool) -> _Field:
        part = _open(session, field, fields)
        if part.model_digest != head.model_digest:
            raise damaged(session, field, f"is of another model ({part.model_digest})")
        if saved_with_meta and part.checksum != meta["checksums"].get(field):
            raise damaged(session, field, "was written by another save than the rest")
        return part

    where = META
    try:
        object_ids = tuple(meta["object_ids"])
        changing, constant, outbox = [], [], []
        for object_id in object_ids:
            where = state_field(object_id)
            changing.append(_unpacked(opened(where, saved_with_meta=True)))
            where = constant_field(object_id)
            constant.append(_unpacked(opened(where, saved_with_meta=False)))
        for where in meta["outbox"]:
            outbox.append(_entry_from_parts(opened(where, saved_with_meta=True)))
        where = META
        return Snapshot(
            session=session,
            model_digest=head.model_digest,
            options=SessionOptions(MaskFormat(meta["options"]["mask_format"]), Flow(meta["options"]["flow"])),
            height=meta["height"],
            width=meta["width"],
            object_ids=object_ids,
            next_frame=meta["next_frame"],
            received_through=meta["received_through"],
            state=State(_stack(changing), _stack(constant)),
            outbox=tuple(outbox),
            changes=tuple(meta["changes"]),
            client=meta["client"],
        )
    except _UNREADABLE as error:
        raise damaged(session, where, f"cannot be understood ({error})") from error


def _check(snapshot: Snapshot) -> None:
    if not snapshot.object_ids:
        raise ValueError("a snapshot needs at least one object")
    if len({entry.frame_index for entry in snapshot.outbox}) != len(snapshot.outbox):
        raise ValueError("a snapshot's outbox holds one entry per frame index")


def _packed(snapshot: Snapshot, rows: Rows) -> Iterator[tuple[int, tuple[Tensors, Layout]]]:
    """For each object."""
    tensors = rows.tensors()
    for name, tensor in tensors.items():
        if len(tensor) != len(snapshot.object_ids):
            raise ValueError(f"state {name!r} has {len(tensor)} rows for {len(snapshot.object_ids)} objects")
    for row, object_id in enumerate(snapshot.object_ids):
        packed, layout = pack({name: tensor[row] for name, tensor in tensors.items()})
        yield object_id, ({"packed": packed}, layout)


def _unpacked(part: _Field) -> Tensors:
    packed = part.tensors["packed"]
    if packed.dtype != np.uint8:
        raise ValueError(f"packed state is bytes, not {packed.dtype}")
    return unpack(packed.view(np.uint8), part.content)


def _stack(rows: Sequence[Tensors]) -> HostRows:
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("the objects have different states")
    # casting="no": two objects whose types differ are an error, not a silent conversion.
    return HostRows(
        (name, np.stack([row[name] for row in rows], dtype=tensor.dtype, casting="no"))
        for name, tensor in rows[0].items()
    )


def _entry_to_parts(entry: Answer | Failure) -> tuple[Tensors, dict[str, Any]]:
    if isinstance(entry, Failure):
        failure = {
            "frame_index": entry.frame_index,
            "reason": entry.reason,
            "message": entry.message,
            "metadata": dict(entry.metadata),
        }
        return {}, {"failure": failure}
    answer = {
        "frame_index": entry.frame_index,
        "mask_format": entry.mask_format,
        "height": entry.height,
        "width": entry.width,
        "objects": [asdict(report) for report in entry.objects],
    }
    return {"mask": np.frombuffer(entry.mask, np.uint8)}, {"answer": answer}


def _entry_from_parts(part: _Field) -> Answer | Failure:
    if "failure" in part.content:
        return Failure(**part.content["failure"])
    answer = part.content["answer"]
    return Answer(
        frame_index=answer["frame_index"],
        mask=part.tensors["mask"].tobytes(),
        mask_format=MaskFormat(answer["mask_format"]),
        height=answer["height"],
        width=answer["width"],
        objects=tuple(_report(**report) for report in answer["objects"]),
    )


def _report(object_id: int, area: int, box: list[int], confidence: float, visible: bool) -> ObjectReport:
    x, y, width, height = box
    return ObjectReport(object_id, area, (x, y, width, height), confidence, visible)


@dataclass(frozen=True)
class _Field:
    tensors: dict[str, NDArray[np.generic]]
    content: Any
    model_digest: str
    checksum: str


def _seal(session: str, model_digest: str, field: str, tensors: Tensors, content: object) -> bytes:
    metadata = {
        "format": FORMAT,
        "session": session,
        "field": field,
        "model_digest": model_digest,
        "checksum": _BLANK,
        "content": json.dumps(content),
    }
    blank = save_tensors(dict(tensors), metadata)
    at, view = _checksum_at(blank, _BLANK), memoryview(blank)
    checksum = hashlib.sha256(blank).hexdigest().encode()
    return b"".join([view[:at], checksum, view[at + len(_BLANK) :]])


def _open(session: str, field: str, fields: Mapping[str, bytes]) -> _Field:
    """Verify one field and read it. The checksum comes before anything that trusts the content."""
    if field not in fields:
        raise damaged(session, field, "is missing")
    data = fields[field]
    try:
        metadata = _metadata(data)
        if metadata["format"] != FORMAT:
            problem = f"has format {metadata['format']!r}, this server reads {FORMAT!r}"
            raise damaged(session, field, problem)
        checksum = metadata["checksum"]
        at, view = _checksum_at(data, checksum), memoryview(data)
        digest = hashlib.sha256(view[:at])
        digest.update(_BLANK.encode())
        digest.update(view[at + len(_BLANK) :])
        if digest.hexdigest() != checksum:
            raise damaged(session, field, "is damaged: its checksum does not match")
        if (metadata["session"], metadata["field"]) != (session, field):
            problem = f"is field {metadata['field']!r} of session {metadata['session']}, and not this one"
            raise damaged(session, field, problem)
        return _Field(load_tensors(data), json.loads(metadata["content"]), metadata["model_digest"], checksum)
    except _UNREADABLE as error:
        raise damaged(session, field, f"is damaged or cut short ({error})") from error


def _header_end(data: bytes) -> int:
    """safetensors: 8 bytes of little-endian header length, the JSON header, the tensors."""
    return 8 + int.from_bytes(data[:8], "little")


def _metadata(data: bytes) -> dict[str, str]:
    header = json.loads(data[8 : _header_end(data)])
    metadata: dict[str, str] = header["__metadata__"]
    return metadata


def _checksum_at(data: bytes, checksum: str) -> int:
    """Where the checksum's digits lie. Only the real key matches: quotes inside JSON strings are escaped."""
    key = b'"checksum":"'
    return data.index(key + checksum.encode() + b'"', 8, _header_end(data)) + len(key)


def _checksum_of(data: bytes) -> str:
    return _metadata(data)["checksum"]
