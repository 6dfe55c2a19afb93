"""YouTube-VOS folders: `meta.json`, `JPEGImages/ID/*.jpg`, `Annotations/ID/*.png` (every fifth frame)."""

import json
from pathlib import Path
from typing import Any

from model.data.read import DataError
from model.data.sequence import ObjectTrack, Sequence


class YoutubeVosDataset:
    """The sequences of one YouTube-VOS split; `root` is the split's folder (`train`, `valid`).

    An object may first appear in a later frame: its `ObjectTrack.frames` starts there. Every object's first
    frame must be annotated; the validation split has no other label maps. Categories are kept, since the
    benchmark's score tells seen from unseen ones. Raises DataError naming the file that is missing or wrong.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.name = self.root.name
        meta = self.root / "meta.json"
        try:
            videos = json.loads(meta.read_text(encoding="utf-8"))["videos"]
            listed = {str(name): _listed_objects(video["objects"]) for name, video in sorted(videos.items())}
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{meta}: cannot be read: {error}") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            layout = "videos/ID/objects/N/frames"
            raise DataError(f"{meta}: not in the YouTube-VOS layout ({layout}): {error!r}") from error
        self.sequences: list[Sequence] = [self._sequence(name, objects) for name, objects in listed.items()]

    def _sequence(self, name: str, objects: dict[int, tuple[str | None, list[str]]]) -> Sequence:
        images, annotations = self.root / "JPEGImages" / name, self.root / "Annotations" / name
        frames = tuple(sorted(images.glob("*.jpg")))
        if not frames:
            raise DataError(f"{images}: no .jpg frames of video {name!r}")
        index = {frame.stem: i for i, frame in enumerate(frames)}
        drawn = {path.stem: path for path in annotations.glob("*.png")}
        tracks = []
        for object_id, (category, stems) in sorted(objects.items()):
            for stem in stems:
                if stem not in index:
                    raise DataError(f"{images / stem}.jpg: object {object_id} is listed here: no such file")
            if stems[0] not in drawn:
                first = annotations / f"{stems[0]}.png"
                raise DataError(f"{first}: object {object_id} first appears here: no such file")
            tracks.append(ObjectTrack(object_id, tuple(index[stem] for stem in stems), category))
        return Sequence(name, frames, tuple(drawn.get(frame.stem) for frame in frames), tuple(tracks))


def _listed_objects(objects: dict[str, Any]) -> dict[int, tuple[str | None, list[str]]]:
    """Category and frame names (ascending, at least one) of every object of one video."""
    listed = {int(n): (entry.get("category"), sorted(entry["frames"])) for n, entry in objects.items()}
    for object_id, (_, frames) in listed.items():
        if not frames:
            raise ValueError(f"object {object_id} is in no frame")
    return listed
