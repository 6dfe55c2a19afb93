"""`s2spp train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Option(help="Named training recipe; --list shows them all.")] = "light_cpu",
    network: Annotated[
        str | None, typer.Option(help="Train another network by the recipe's schedule; --list shows them all.")
    ] = None,
    learned_weights: Annotated[
        bool, typer.Option("--learned-weights", help="Learn the weights of the loss's terms (future work).")
    ] = False,
    data: Annotated[Path, typer.Option(help="Folder that holds the recipe's data sets.", envvar="S2SPP_DATA")] = Path(
        "data"
    ),
    out: Annotated[Path, typer.Option(help="Folder for checkpoint, log and TensorBoard curves.")] = Path("runs/light"),
    encoder_weights: Annotated[
        Path | None,
        typer.Option(help="ImageNet weights of the encoder (safetensors). Default: DATA/backbones, when it is there."),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Start from the weights of this checkpoint or bundle folder; those that fit are taken."),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(min=0, metavar="N", help="Stop after so long and save; the same command goes on later."),
    ] = None,
    devices: Annotated[int, typer.Option(help="GPUs (or CPU processes) to train on.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes that prepare clips.")] = 1,
    resume: Annotated[bool, typer.Option(help="Go on from OUT/checkpoint.pt when it is there.")] = True,
    list_recipes: Annotated[bool, typer.Option("--list", help="Show the recipes and end.")] = False,
) -> None:
    """Train a network; stop and resume at will.

    Examples:

        s2spp train --recipe smoke --data DATA --out runs/smoke        a minute, to see that it runs

        s2spp train --data DATA --out runs/light --max-minutes 60      run it again to go on

        tensorboard --logdir runs/light/tensorboard                    watch the curves
    """
    from dataclasses import replace

    from rich import print as show

    from model.recipes import RECIPES
    from model.recipes import recipe as network_recipe
    from model.training.config import GOES_ON, TRAIN_RECIPES
    from model.training.loop import RunOptions
    from model.training.loop import train as run

    if list_recipes:
        for name, make in TRAIN_RECIPES.items():
            show(f"[bold]{name}[/]: {' '.join((make.__doc__ or '').split())}")
        show("\nNetworks (--network), every variant of the paper's tables II and III among them:")
        for name, build in RECIPES.items():
            show(f"[bold]{name}[/]: {' '.join((build.__doc__ or '').split())}")
        return
    if recipe not in TRAIN_RECIPES:
        raise ValueError(f"no training recipe {recipe!r}; there are {', '.join(TRAIN_RECIPES)}")
    begun = resume and (out / "checkpoint.pt").exists()
    if recipe in GOES_ON and init_from is None and not begun:
        raise ValueError(
            f"{recipe} goes on from a trained network: name its checkpoint or bundle with --init-from, such as "
            "--init-from runs/light/checkpoint.pt or --init-from bundles/s2spp-light"
        )
    config = TRAIN_RECIPES[recipe]()
    if network is not None:
        config = replace(config, network=network)
    if learned_weights:
        config = replace(config, loss=replace(config.loss, learned_weights=True))
    if encoder_weights is None:
        files = {"mobilenet_v2": "mobilenet_v2_imagenet.safetensors", "vgg16": "vgg16_conv1_to_conv3.safetensors"}
        found = data / "backbones" / files[network_recipe(config.network).encoder]
        encoder_weights = found if found.exists() else None
    result = run(
        config,
        RunOptions(
            data=data,
            out=out,
            encoder_weights=encoder_weights,
            init_from=init_from,
            max_minutes=max_minutes,
            devices=devices,
            workers=workers,
            resume=resume,
        ),
    )
    state = "finished" if result.finished else "to go on, run the same command again"
    show(f"step {result.steps} of {config.steps}: {state}. Checkpoint: {result.checkpoint}")
