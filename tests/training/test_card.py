"""The card says of the data what is known, and nothing else."""

from dataclasses import replace

import pytest
import torch

from mmif.config import Pipeline, load_pipeline, shipped_path
from mmif.training.card import DATA_TERMS, UNKNOWN_TERMS, Origin, weights_card
from mmif.training.validation import Validation

FIGURES = dict.fromkeys(("EN", "AG"), 1.0)
FOUND = Validation(FIGURES, {"maximum": FIGURES}, 1.0, 0.5, 36)


def card(pipeline: Pipeline, *held: str) -> dict[str, object]:
    cases = {"training": {"7": 3}, "validation": dict.fromkeys(held, 2)}
    origin = Origin("mmif train --task ct-mri", "abc", "f1 123")
    return weights_card(pipeline, origin, cases, FOUND, torch.device("cpu"), 12.34)


def test_a_card_is_complete() -> None:
    found = card(load_pipeline("ct-mri"), "32", "34")
    assert found["data"]["cases"]["validation"] == {"32": 2, "34": 2}
    assert found["data"]["terms"] == found["licence"]["data"] == DATA_TERMS["harvard"]
    assert found["recipe"]["training"]["validation_cases"] == ("32", "34")
    assert found["recipe"]["loss"]["gradient"] > 0
    assert (found["command"], found["commit"]) == ("mmif train --task ct-mri", "abc")
    assert (found["started_from"], found["seconds"]) == ("f1 123", 12.3)
    assert found["device"].startswith("CPU")
    assert found["validation"]["ours"] == found["validation"]["baselines"]["maximum"] == FIGURES
    assert "no volume was seen" in found["limits"][0]
    assert found["licence"]["code_and_weights"] == "Apache-2.0"


@pytest.mark.parametrize("task", sorted(p.name for p in shipped_path("weights").iterdir()))
def test_the_shipped_recipes_name_their_data(task: str) -> None:
    recipe, pipelines = load_pipeline(task), shipped_path("pipelines")
    assert card(recipe, *recipe.training.validation_cases)["data"]["terms"] in DATA_TERMS.values()
    if (pipelines / f"paper-{task}.yaml").is_file():  # the paper has no activity with a CT
        assert load_pipeline(f"paper-{task}").training.data == recipe.training.data


def test_other_data_has_no_terms_and_limits_of_the_public_one() -> None:
    recipe = load_pipeline("ct-mri")
    own = replace(recipe, training=replace(recipe.training, data=None))
    for found in (card(recipe, "mine"), card(own, "32", "34")):
        assert found["licence"]["data"] == UNKNOWN_TERMS
        assert not any("brain windows" in limit for limit in found["limits"])
