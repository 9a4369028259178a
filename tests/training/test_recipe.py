"""Recipes are checked before anything starts."""

import pytest
import yaml

from lenssr import InputError
from lenssr.training import Recipe, recipe_names
from lenssr.training.recipe import read_changes
from lenssr.training.tasks import TASKS

MINIMAL = {
    "task": "relensing",
    "objectives": {"data_consistency": 1.0},
    "data": [{"dataset": "DeepLense", "size": 4}],
    "validation": [{"dataset": "DeepLense", "size": 2, "seed": 9}],
}


def test_there_is_a_recipe_for_every_task():
    assert {Recipe.load(name).task for name in recipe_names()} == set(TASKS)


@pytest.mark.parametrize("name", recipe_names())
def test_nothing_is_validated_on_what_it_was_trained_on(name):
    recipe = Recipe.load(name)
    seeds = [{entry["seed"] for entry in part} for part in (recipe.data, recipe.validation)]
    assert seeds[0].isdisjoint(seeds[1])


def test_a_recipe_survives_yaml(tmp_path):
    recipe = Recipe.load("lenssr-no-source", {"network.kernels": [5, 3]})
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(recipe.to_dict()), encoding="utf-8")
    assert Recipe.load(path) == recipe


def test_changes_reach_sections_lists_and_what_the_file_leaves_out():
    changes = {"optimisation.steps": 700, "data.1.size": 5, "hardware.devices": 2}
    recipe = Recipe.load("relensing", changes)
    assert (recipe.optimisation.steps, recipe.data[1]["size"], recipe.hardware.devices) == (700, 5, 2)


def test_first_weights_are_those_of_the_seed():
    states = [Recipe.load("bicubic", {"optimisation.seed": seed}).build().state_dict() for seed in (1, 1, 2)]
    first = [state["image.first.0.weight"] for state in states]
    assert (first[0] == first[1]).all() and (first[0] != first[2]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "magic"}, "task = 'magic': give one of 'bicubic'"),
        ({"colour": 1}, "colour is not known: give 'task'"),
        ({"optimisation": {"stepz": 1}}, "optimisation.stepz is not known: give 'steps'"),
        ({"optimisation": {"steps": 0}}, "optimisation.steps = 0: give an integer of at least 1"),
        ({"optimisation": {"steps": 250}}, "steps = 250 is not a multiple of check_every = 100: give 300"),
        ({"optimisation": {"steps": 2.5}}, "optimisation.steps = 2.5: give an integer"),
        ({"optimisation": {"learning_rate": "1e-3"}}, "'1e-3' is not a number: write, for example, 0.001"),
        ({"optimisation": {"learning_rate": 0}}, "learning_rate = 0: give a number above 0"),
        ({"optimisation": {"schedule": "steep"}}, "optimisation.schedule = 'steep': give one of 'cosine'"),
        ({"optimisation": {"patience": 0}}, "optimisation.patience = 0"),
        ({"optimisation": 3}, "optimisation = 3: give keys and values"),
        ({"hardware": {"accelerator": "tpu"}}, "hardware.accelerator = 'tpu': give one of"),
        ({"hardware": {"precision": "16-mixed", "accelerator": "cpu"}}, "needs CUDA.*give '32-true'"),
        ({"hardware": {"threads": 0}}, "hardware.threads = 0: give an integer of at least 1"),
        ({"hidden": 0.95}, "hidden = 0.95: give a share of the pixels between 0 and 0.9"),
        ({"objectives": {}}, "objectives are empty"),
        ({"objectives": {"lens_error": 1}}, "objectives.lens_error is not known: give 'hidden_pixels'"),
        ({"objectives": {"data_consistency": -1}}, "objectives.data_consistency = -1: .* not negative"),
        ({"objectives": {"hidden_pixels": 1}}, "needs hidden pixels: give hidden"),
        ({"network": {"sides": 32}}, "network.sides is not known: give 'side', 'stretch', 'channels'"),
        ({"network": {"side": 3}}, "side = 3: give an integer of at least 16"),
        ({"network": {"channels": 8}}, "network = {'channels': 8}"),
        ({"data": []}, "data = \\[\\]: give a list of data sets"),
        ({"data": [{"dataset": "Sky"}]}, "data.0.dataset = 'Sky': give one of .*'DeepLense'"),
        ({"data": [{"dataset": "DeepLense", "colour": 1}]}, "data.0.colour is not known: give 'model'"),
        (
            {"validation": [{"dataset": "DeepLense", "lens": "nfw"}]},
            "validation.0: lens = 'nfw': give one of",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_place_and_the_remedy(changes, message):
    with pytest.raises(InputError, match=message):
        Recipe.from_dict({**MINIMAL, **changes})


def test_networks_and_data_need_the_same_magnification():
    with pytest.raises(InputError, match="data.0.scale = 2, of the network 3: give both the same scale"):
        Recipe.load("bicubic", {"network.scale": 3})


@pytest.mark.parametrize("name", ["task", "objectives", "data", "validation"])
def test_what_is_missing_is_named(name):
    with pytest.raises(InputError, match=f"the recipe has no {name}: add it"):
        Recipe.from_dict({key: value for key, value in MINIMAL.items() if key != name})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (": [", "cannot be read as YAML"),
        ("3", "= 3: give keys and values"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_files_that_are_no_recipe_are_refused(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        Recipe.load(path)


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(InputError, match="esrgan is no file, and none of 'bicubic', 'deflection'"):
        Recipe.load("esrgan")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("data.7.size", "'7' is not a position in a list: give 0 to 3"),
        ("task.name", "name is in no section"),
    ],
)
def test_changes_that_lead_nowhere_are_refused(key, message):
    with pytest.raises(InputError, match=message):
        Recipe.load("relensing", {key: 1})


def test_settings_of_the_command_are_yaml():
    assert read_changes(["a.b=1", "c=[1, 2]", "d=x=y"]) == {"a.b": 1, "c": [1, 2], "d": "x=y"}


@pytest.mark.parametrize("text", ["steps", "=3", "a=[1"])
def test_settings_that_cannot_be_read_are_refused(text):
    with pytest.raises(InputError, match="--set"):
        read_changes([text])
