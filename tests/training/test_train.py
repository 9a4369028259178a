"""Training on Lightning: every recipe runs, and a training that was killed ends as if it had not been."""

import csv
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from lenssr import InputError, cli
from lenssr.networks import SISR, load_weights
from lenssr.training import Recipe, recipe_names, train
from lenssr.training.data import Schedule

FEW = {"optimisation.steps": 4, "optimisation.check_every": 2, "optimisation.batch_size": 2}
SMALL = {
    "relensing": {"network.side": 16, "network.channels": [4, 6]},
    "deflection": {"network": {"channels": [4, 4, 4], "hidden": 8, "knots": 5}},
}


def quick(name, **changes):
    """A recipe cut to seconds: few steps of small networks on few lenses."""
    whole = Recipe.load(name)
    few = {**FEW, **SMALL.get(whole.task, {"network.channels": 4, "network.depth": 1})}
    for part in ("data", "validation"):
        for number in range(len(getattr(whole, part))):
            few[f"{part}.{number}.size"] = 2
    return Recipe.load(name, {**few, **changes})


def numbers(task):
    return {name: value.clone() for name, value in task.state_dict().items()}


@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.startswith("seed")])
def test_every_recipe_trains(name, tmp_path):
    recipe = quick(name)
    trained = train(recipe, tmp_path)
    assert trained.steps == 4 and trained.scores["loss"] == trained.scores["loss"]
    assert ("psnr" in trained.scores) == (name != "deflection")
    before, after = recipe.build().state_dict(), trained.task.state_dict()
    assert any((before[key] != after[key]).any() for key in before)
    assert (tmp_path / "recipe.yaml").exists()
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("name", ["seed-no-source", pytest.param("seed-with-source", marks=pytest.mark.slow)])
def test_the_network_of_lenssr_trains(name, tmp_path):
    """In its full size, a step or two on a single lens."""
    whole = Recipe.load(name)
    few = {f"data.{number}.size": 1 for number in range(len(whole.data))}
    few |= {"validation": whole.validation[:1], "validation.0.size": 1}
    few |= {"optimisation.steps": 2, "optimisation.check_every": 2, "optimisation.batch_size": 1}
    recipe = Recipe.load(name, few)
    trained = train(recipe, tmp_path)
    assert trained.task.image.settings == SISR.seed().settings
    assert sum(values.numel() for values in trained.task.image.parameters()) == 899_843
    before, after = recipe.build().image.state_dict(), trained.task.image.state_dict()
    assert all((before[key] != after[key]).any() for key in before if key.endswith("weight"))


def test_the_correction_of_the_potential_trains_towards_positive_mass(tmp_path):
    weights = {
        "lens_error": 1.0,
        "deflection_error": 1.0,
        "positive_convergence": 1.0,
        "variation_density": 0.01,
    }
    recipe = quick("deflection", **{f"objectives.{name}": weight for name, weight in weights.items()})
    trained = train(recipe, tmp_path)
    assert set(weights) <= set(trained.scores)
    assert (trained.task.lens.last.weight != 0).any()


def test_a_recipe_says_how_many_cores_a_step_takes(tmp_path, monkeypatch):
    recipe, seen, before = quick("relensing", **{"hardware.threads": 2}), [], torch.get_num_threads()
    build = Recipe.build

    def built(self):
        task = build(self)
        for network in task.networks.values():
            network.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
        return task

    monkeypatch.setattr(Recipe, "build", built)
    train(recipe, tmp_path)
    assert set(seen) == {2}
    assert torch.get_num_threads() == before


def test_losses_fall():
    """What the objectives are for: a few dozen steps on one batch bring the hidden pixels' chi2 down."""
    recipe = quick("relensing", **{"data.0.size": 4, "network.channels": [8, 12]})
    task = recipe.build()
    batch = recipe.datasets("data")[0].batch()
    optimizer = torch.optim.Adam(task.parameters(), 5e-3)
    losses = []
    for step in range(40):
        view = task.view(batch, torch.Generator().manual_seed(step))
        loss = task.losses(view)["hidden_pixels"]()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_logs_and_checkpoints_are_written(tmp_path):
    train(quick("relensing"), tmp_path)
    with open(tmp_path / "csv" / "version_0" / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {"loss", "hidden_pixels", "seconds", "val_loss", "val_psnr", "lr-AdamW"} <= set(rows[0])
    step = next(row for row in rows if row["seconds"])
    assert 0 <= float(step["waited"]) < float(step["seconds"])
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents.*"))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "before.ckpt",
        "best.ckpt",
        "last.ckpt",
    }


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_learning_rate_rises_and_falls(schedule):
    recipe = quick("relensing", **{"optimisation.steps": 100, "optimisation.warmup": 10})
    recipe = Recipe.from_dict(
        recipe.to_dict() | {"optimisation": {"steps": 100, "warmup": 10, "schedule": schedule}}
    )
    rates = [recipe.optimisation.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11) and max(rates) == rates[10] == 1
    assert rates[100] == pytest.approx(0.01 if schedule == "cosine" else 1.0)


def test_training_ends_early_where_nothing_is_gained(tmp_path):
    changes = {"optimisation.patience": 1, "optimisation.steps": 50, "optimisation.check_every": 1}
    # At this rate the first weights are the best.
    trained = train(quick("relensing", **changes, **{"optimisation.learning_rate": 1e3}), tmp_path)
    assert trained.steps < 50


class Killed(Exception):
    pass


def kill_at(monkeypatch, last):
    """Let the process end, as far as the training can tell, where batch ``last`` is asked for."""
    whole = Schedule.__getitem__

    def until(schedule, number):
        if number == last:
            raise Killed
        return whole(schedule, number)

    monkeypatch.setattr(Schedule, "__getitem__", until)


@pytest.mark.parametrize("last", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path, monkeypatch, last):
    recipe = quick("relensing", **{"optimisation.steps": 6})
    expected = numbers(train(recipe, tmp_path / "whole").task)
    with monkeypatch.context() as patch:
        kill_at(patch, last)
        with pytest.raises(Killed):
            train(recipe, tmp_path / "parts")
    trained = train(recipe, tmp_path / "parts", resume=True)
    assert trained.steps == 6
    found = numbers(trained.task)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.slow
def test_a_process_that_was_killed_goes_on_to_the_same_bits(tmp_path):
    recipe = quick("relensing", **{"optimisation.steps": 6})
    expected = numbers(train(recipe, tmp_path / "whole").task)
    code = """
        import os, signal, sys
        from lenssr.training import Recipe, train
        from lenssr.training.data import Schedule
        whole = Schedule.__getitem__

        def until(schedule, number):
            if number == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(schedule, number)

        Schedule.__getitem__ = until
        train(Recipe.load(sys.argv[1]), sys.argv[2])
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "whole/recipe.yaml")]
    done = subprocess.run([*command, str(tmp_path / "parts")], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    found = numbers(train(recipe, tmp_path / "parts", resume=True).task)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_folder_that_holds_a_training_is_not_overwritten(tmp_path):
    recipe = quick("bicubic")
    train(recipe, tmp_path)
    with pytest.raises(InputError, match="holds a training already: resume it, or name another folder"):
        train(recipe, tmp_path)
    with pytest.raises(InputError, match="optimisation differ from .*recipe.yaml: resume with it"):
        train(quick("bicubic", **{"optimisation.steps": 8}), tmp_path, resume=True)
    with pytest.raises(InputError, match="holds no checkpoint to resume"):
        train(recipe, tmp_path / "nowhere", resume=True)


def test_without_lightning_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(InputError, match=r"pip install 'lenssr\[train\]'"):
        train(quick("bicubic"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_interrupt_is_one(tmp_path, monkeypatch):
    """Lightning would end the process with another code, and leave it deaf to further interrupts."""
    before = signal.getsignal(signal.SIGINT)

    def interrupted(schedule, number):
        raise KeyboardInterrupt

    monkeypatch.setattr(Schedule, "__getitem__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(quick("bicubic"), tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_command_trains_and_resumes(tmp_path, capsys, caplog):
    caplog.set_level("INFO", logger="lenssr")
    train(quick("bicubic"), tmp_path / "first")
    assert caplog.messages[0] == f"training bicubic, 4 steps, in {tmp_path / 'first'}"
    assert caplog.messages[1].startswith("best validation: loss ")
    recipe, folder = tmp_path / "first" / "recipe.yaml", tmp_path / "run"
    changes = ["--set", "optimisation.steps=6"]
    assert cli.main(["train", str(recipe), "-o", str(folder), *changes]) == 0
    assert "steps          6" in capsys.readouterr().out
    assert cli.main(["train", str(recipe), "-o", str(folder), *changes]) == 1
    assert "holds a training already" in capsys.readouterr().err
    assert cli.main(["train", str(recipe), "-o", str(folder), *changes, "--resume"]) == 0
    assert cli.main(["train", str(recipe), "-o", str(folder), "--set", "objectives.foo=1"]) == 1
    assert "objectives.foo is not known" in capsys.readouterr().err


def test_weights_and_cards_are_written_and_can_be_begun_with(tmp_path):
    first = train(quick("lenssr-no-source"), tmp_path / "first")
    files = {name: tmp_path / "first" / "weights" / f"{name}.safetensors" for name in ("image", "source")}
    for name, path in files.items():
        network, card = load_weights(path, kind="SISR")
        assert network.settings == first.task.networks[name].settings
        assert all(
            torch.equal(a, b)
            for a, b in zip(network.parameters(), first.task.networks[name].parameters(), strict=True)
        )
        assert card.steps == 4 and card.scores == first.scores and card.minutes > 0 and card.device == "cpu"
        assert card.recipe["task"] == "lenssr-no-source"
        assert card.limits["pixel_scale"] == [0.05, 0.05] and card.limits["psf_fwhm"] == [0.0, 0.0]
        assert 10 < card.limits["snr"][0] < card.limits["snr"][1] < 1e4
    task = quick("lenssr-no-source", **{"start.image": str(files["image"])}).build()
    begun = zip(task.image.parameters(), first.task.image.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in begun)
    with pytest.raises(InputError, match="start.lens is not known: give 'image', 'source'"):
        quick("lenssr-no-source", **{"start.lens": str(files["image"])})
    with pytest.raises(InputError, match="has depth = 1, the recipe 2: give the same"):
        quick("lenssr-no-source", **{"start.image": str(files["image"]), "network.depth": 2})
