"""YouTube-VOS scores objects of categories that training has seen apart from those it has not. Seen are the categories
of the training split's meta.json: it has 65; the validation split has these and 26 more."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.data.read import DataError
from model.data.youtube_vos import YoutubeVosDataset
from s2spp.evaluation import scorable


@dataclass(frozen=True)
class Seen:
    """Of (sequence name, object id), whether its category is one of `train_meta`'s."""

    train_meta: Path
    objects: Mapping[tuple[str, int], bool]


def train_meta_beside(dataset: YoutubeVosDataset) -> Path | None:
    """`train/meta.json` next to the split's folder, as the benchmark is unpacked; None if the split is that one."""
    # abspath and not resolve: a split that is a link has its neighbours where the link lies.
    train = Path(os.path.abspath(dataset.root)).parent / "train"
    meta = train / "meta.json"
    return meta if meta.is_file() and not train.samefile(dataset.root) else None


def seen_objects(dataset: YoutubeVosDataset, train_meta: Path) -> Seen:
    """Sorts the objects of `dataset` by the categories of `train_meta`, a YouTube-VOS meta.json.

    Raises:
        DataError: `train_meta` is no such file, an object has no category, or the objects that can be scored are not
            of both kinds.
    """
    known = _categories(train_meta)
    objects: dict[tuple[str, int], bool] = {}
    for sequence in dataset.sequences:
        for track in sequence.objects:
            if track.category is None:
                raise DataError(
                    f"{dataset.root / 'meta.json'}: object {track.object_id} of {sequence.name} has no category"
                )
            objects[sequence.name, track.object_id] = track.category in known
    kinds = {objects[sequence.name, track.object_id] for sequence in dataset.sequences for track in scorable(sequence)}
    if len(kinds) < 2:
        both = "the score needs objects of seen and of unseen categories"
        raise DataError(
            f"{train_meta}: lists {'every' if kinds == {True} else 'no'} category of {dataset.root}; {both}"
        )
    return Seen(train_meta, objects)


def _categories(meta: Path) -> set[str]:
    try:
        videos = json.loads(meta.read_text(encoding="utf-8"))["videos"]
        return {str(entry["category"]) for video in videos.values() for entry in video["objects"].values()}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{meta}: cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        layout = "videos/ID/objects/N/category"
        raise DataError(f"{meta}: not a YouTube-VOS meta.json with categories ({layout}): {error!r}") from error
