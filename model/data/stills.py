"""Synthetic clips made from photos with one object mask each."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.augment import AugmentConfig
from model.data.clip import Clip, NotVisibleError
from model.data.read import DataError, read_labels, read_rgb
from model.data.scene import Scene, SceneConfig, Still, stage

SMALLEST_OBJECT = 400
"""Objects with fewer pixels in their photo would be blown up into blobs: such photos are left out."""
LARGEST_OBJECT = 0.8
"""Photos whose object covers a larger share have no surroundings left to tell it from."""
START_COVER = (0.004, LARGEST_OBJECT)
TRIES = 50


@dataclass(frozen=True)
class StillConfig:
    """What synthetic clips look like."""

    scene: SceneConfig = field(default_factory=SceneConfig)
    colour: AugmentConfig = field(default_factory=AugmentConfig)


class StillSource:
    """Clips out of `folder/images/*.jpg` and `folder/masks/*.png` (0/1 or 0/255, same names).

    `backgrounds` is an optional folder of further photos without masks. The constructor reads every mask
    once, so that an unreadable or missing one is named at the start; photos with a very small or large object
    are left out.
    """

    def __init__(
        self, folder: Path | str, backgrounds: Path | str | None = None, config: StillConfig | None = None
    ) -> None:
        self.folder = Path(folder)
        self.name = self.folder.name
        self.config = config or StillConfig()
        self._backgrounds = _jpegs(Path(backgrounds)) if backgrounds is not None else []
        self._stems = [path.stem for path in _jpegs(self.folder / "images") if self._usable(path.stem)]
        if not self._stems:
            raise DataError(f"{self.folder}: no photo with an object of {SMALLEST_OBJECT} pixels or more")

    def __len__(self) -> int:
        return len(self._stems)

    def sequence(self, index: int) -> str:
        """Name of photo `index`: FOLDER/STEM."""
        return f"{self.name}/{self._stems[index]}"

    def clip(self, index: int, length: int, size: tuple[int, int], rng: np.random.Generator) -> Clip:
        """Draw a clip of photo `index`'s object in motion; frame 0 shows it on 0.4 % of the pixels or more."""
        scene = self._scene(index, length, size, rng)
        frames, masks = zip(*(scene.render(t) for t in range(length)), strict=True)
        return Clip(self.sequence(index), np.stack(frames), np.stack(masks))

    def _scene(self, index: int, length: int, size: tuple[int, int], rng: np.random.Generator) -> Scene:
        others = [i for i in range(len(self)) if i != index] or [index]
        still, other = self._still(index), self._still(others[int(rng.integers(len(others)))])
        backdrop = None
        if self._backgrounds and rng.random() < 0.5:
            backdrop = read_rgb(self._backgrounds[int(rng.integers(len(self._backgrounds)))])
        for _ in range(TRIES):
            scene = stage(still, other, backdrop, length, size, self.config.scene, self.config.colour, rng)
            if START_COVER[0] <= float(scene.mask(0).mean()) <= START_COVER[1]:
                return scene
        raise NotVisibleError(f"{self._mask_path(self._stems[index])}: no place found for this object in {TRIES} tries")

    def _still(self, index: int) -> Still:
        stem = self._stems[index]
        photo, mask = read_rgb(self.folder / "images" / f"{stem}.jpg"), self._mask(stem)
        if photo.shape[:2] != mask.shape:
            raise DataError(
                f"{self._mask_path(stem)}: size {mask.shape[1]} x {mask.shape[0]}, but its photo has "
                f"{photo.shape[1]} x {photo.shape[0]}"
            )
        return Still(photo, mask)

    def _usable(self, stem: str) -> bool:
        mask = self._mask(stem)
        return bool(mask.sum() >= SMALLEST_OBJECT and mask.mean() <= LARGEST_OBJECT)

    def _mask(self, stem: str) -> NDArray[np.uint8]:
        values = read_labels(self._mask_path(stem))
        # 0/1, 0/255, and 0..255 with a smoothed edge
        return np.where(values > values.max() / 2, np.uint8(1), np.uint8(0))

    def _mask_path(self, stem: str) -> Path:
        return self.folder / "masks" / f"{stem}.png"


def _jpegs(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.jpg"))
    if not found:
        raise DataError(f"{folder}: no .jpg photos in it")
    return found
