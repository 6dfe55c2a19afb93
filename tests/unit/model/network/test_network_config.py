"""Configurations of networks: what goes through JSON, and what cannot be built."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from model.config import AttentionConfig, DistanceConfig, MemoryConfig, NetworkConfig
from model.recipes import RECIPES, paper, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_configuration_survives_json(name: str) -> None:
    config = recipe(name)
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_class_counts_are_those_of_table_three() -> None:
    assert [DistanceConfig(r, s).classes for r, s in ((20, 10), (20, 1), (10, 1))] == [6, 42, 22]
    assert recipe("paper").distance == DistanceConfig(20, 1)
    assert recipe("border_20_10").distance == DistanceConfig(20, 10)
    assert recipe("border_10_1").distance == DistanceConfig(10, 1)


def test_the_rows_of_table_two_differ_in_skip_memories_and_task() -> None:
    rows = [recipe(name) for name in ("base", "base_multitask", "one_skip", "one_skip_multitask", "paper")]
    assert [len(row.memories) - 1 for row in rows] == [0, 0, 1, 1, 2]
    assert [row.distance is not None for row in rows] == [False, True, False, True, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: replace(c, memories=()), "stride 32"),
        (lambda c: replace(c, memories=(MemoryConfig(16, 8, 3),)), "stride 32"),
        (lambda c: replace(c, decoder=()), "1 to 5 stages"),
        (lambda c: replace(c, decoder=(8, 8), attention=None), "do not reach"),
        (lambda c: replace(c, merge=(8, 8, 8)), "2 merges at most"),
        (lambda c: replace(c, merge=(8, 0)), "each 1 or more"),
        (lambda c: replace(c, attention=None, recurrence="mask_guidance"), "mask guidance has none"),
        (lambda c: replace(c, multiple=48), "multiples of the encoder's stride"),
        (lambda c: replace(c, attention=AttentionConfig(stride=4)), "needs a memory there"),
        (lambda c: replace(c, attention=AttentionConfig(reference=False, previous=False)), "leave it out"),
        (lambda c: replace(c, recurrence="mask_guidance", memories=paper().memories), "no initializer"),
        (lambda c: replace(c, distance=DistanceConfig(10, 3)), "do not divide"),
    ],
)
def test_what_cannot_be_built_is_refused(change: Callable[[NetworkConfig], NetworkConfig], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(recipe("light"))


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="light_plain"):
        recipe("lite")
