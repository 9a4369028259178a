"""Self-supervised fine-tuning of the network of a resolver on images of one's own, without finer ones."""

import copy
import math
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from lenssr.exceptions import InputError, LensSRWarning
from lenssr.networks.network_source import TrainedNetwork
from lenssr.networks.relensing import RelensingNetwork
from lenssr.networks.weights import Card, checksum_of, save_weights
from lenssr.options import AUTO, SEARCH
from lenssr.reconstruction import decisions
from lenssr.reconstruction.light_choice import LightChoiceReconstruction, with_light_shown
from lenssr.reconstruction.network import NetworkReconstruction, subtract_foreground
from lenssr.training import Optimisation, data_consistency, draw_hidden, loop
from lenssr.training.data import ORDER_STREAM, hidden_pixel_generator

# Shares of the pixels that are held back from all steps, for the score, and that are hidden in one step.
HELD, HIDDEN = 0.1, 0.3
TASK, LABEL = "own images", ", trained on own images"
NOTES = (
    "Trained further on a user's own images. Scores are chi2 per pixel of a tenth of their pixels, which the "
    "network was never shown nor trained towards; lens, lens light and sky were fitted to all pixels."
)


class TrainingImage:
    """An image, alone in its stack, with its foreground, for a ``network`` in training.

    The generator ``held`` chooses the pixels that are held back.
    """

    def __init__(self, stack, prediction, network, held):
        self.stack, self.foreground, self.seen = stack, prediction.foreground, prediction.seen
        self.predictor = copy.copy(prediction.predictor)
        self.predictor.network = network
        self.data = stack.data.reshape(1, *stack.grid.shape)
        self.held = draw_hidden(self.data, HELD, held)

    def loss(self, generator):
        """`~lenssr.training.data_consistency` of pixels hidden for one step, without those held back."""
        hidden = draw_hidden(self.data, HIDDEN, generator) & ~self.held
        return self._miss(hidden | self.held, hidden)

    @torch.no_grad()
    def score(self):
        """`~lenssr.training.data_consistency` of the pixels that are held back, a float."""
        return float(self._miss(self.held, self.held))

    def _miss(self, hidden, counted):
        image, variance = subtract_foreground(self.stack, self.foreground, hidden)
        lensed = self.predictor.lensed(*self.predictor(image, variance.masked_fill(hidden, torch.inf)))
        expected = self.stack.moments(lensed + self.foreground)[0].reshape(self.data.shape)
        return data_consistency(expected, self.data, variance * self.stack.factor**2, counted)


def fine_tune(method, observations, names, lenses, *, steps, learning_rate, folder, progress):
    """Train the network of a resolver further: its method with that network alone.

    ``names`` of the images are for messages; ``lenses`` are one for each image, or None: as the settings of
    the method have it. The other arguments are those of `~lenssr.SuperResolver.fine_tune`.
    """
    settings = method.settings
    pace = {"learning_rate": learning_rate, "warmup": steps // 10 if isinstance(steps, int) else 0}
    optimisation = Optimisation(steps=steps, batch_size=1, check_every=steps, seed=int(settings.seed), **pace)
    lightning = loop.import_lightning()
    start, network, images = _prepared(method, observations, names, lenses, progress)
    device, began = settings.torch_device, time.monotonic()
    before = _score(images)
    _teach(lightning, network, images, optimisation, device, folder, progress)
    network.to(device).eval().requires_grad_(False)
    after = _score(images)
    if not math.isfinite(after):
        raise InputError(f"learning_rate = {learning_rate}: the training diverged, give a lower one")
    if after > decisions.FINE_TUNING_WORSE * before:
        warnings.warn(
            f"chi2 per pixel of those held back is {after:.4g} after training, {before:.4g} before: give "
            "more images, fewer steps or a lower learning_rate",
            LensSRWarning,
            stacklevel=3,
        )
    recipe = {"task": TASK, "start": start.origin, "objectives": {"hidden_pixels": 1.0}}
    recipe |= {"hidden": HIDDEN, "held_back": HELD, "images": len(images)}
    seen = {name: [image.seen[name] for image in images] for name in images[0].seen}
    card = Card(
        recipe=recipe | {"optimisation": {"steps": steps, "learning_rate": learning_rate}},
        seed=optimisation.seed,
        device=loop.device_name(device),
        minutes=(time.monotonic() - began) / 60,
        steps=steps,
        scores={"hidden_pixels_before": before, "hidden_pixels": after},
        limits={name: [min(values), max(values)] for name, values in seen.items()},
        notes=NOTES,
    )
    if folder is not None:
        save_weights(network, Path(folder) / "source.safetensors", card)
    name = start.name.removesuffix(LABEL) + LABEL
    trained = [TrainedNetwork(name, network, card, checksum_of(network))]
    if isinstance(method, LightChoiceReconstruction):
        dark = NetworkReconstruction(method.dark.settings, trained)
        return LightChoiceReconstruction(settings, dark)
    return NetworkReconstruction(settings, trained)


def check_method(method):
    """Refuse the method of a resolver that is no `NetworkReconstruction`, whatever the lens light."""
    if isinstance(getattr(method, "dark", method), NetworkReconstruction):
        return
    kind = method.settings.kind
    what = "an SISR, which knows no lens" if kind == "network" else "not a network"
    raise InputError(
        f"source = {method.settings.source!r} is {what}: fine_tune() trains what draws a source, give "
        f"source='network' or the weights of a {RelensingNetwork.kind}"
    )


def training_of(method):
    """The `~lenssr.networks.Card` of the method of a resolver that `fine_tune` has trained, or None."""
    cards = [known.card for known in getattr(method, "networks", [])]
    return next((card for card in cards if card.recipe.get("task") == TASK), None)


def _prepared(method, observations, names, lenses, progress):
    """The network to begin with, its copy to be trained, and the images before that."""
    start = network = None
    images = []
    entries = zip(observations, names, lenses, strict=True)
    for number, entry in enumerate(tqdm(entries, "preparing", len(names), disable=not progress)):
        observation, name, lens = entry
        settings, known = method.settings, method.networks if start is None else [start]
        try:
            if lens is not None:
                settings = replace(settings, lens=lens, fit_lens=False, start=SEARCH)
            if settings.lens_light == AUTO:
                settings = with_light_shown(settings, [observation])
            own = NetworkReconstruction(settings, known)
            stack, *found = own.begin([observation])
            ((scene, fit),) = own.parametric.with_slopes(stack, *found)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        prediction = own.predict(stack, scene, fit, observation)
        if start is None:
            start = prediction.known
            network = copy.deepcopy(start.network).train().requires_grad_(True)
        held = hidden_pixel_generator(method.settings.seed, -1 - number)
        images.append(TrainingImage(stack, prediction, network, held))
    return start, network, images


def _teach(lightning, network, images, optimisation, device, folder, progress):
    """Take the steps, one image in each; every pass through the images has an order of its own."""

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network

        def training_step(self, _):
            number = self.global_step
            turn, place = divmod(number, len(images))
            order = np.random.default_rng([optimisation.seed, ORDER_STREAM, turn]).permutation(len(images))
            loss = images[order[place]].loss(hidden_pixel_generator(optimisation.seed, number))
            self.log("hidden_pixels", loss.detach(), prog_bar=True, batch_size=1)
            return loss

        def configure_optimizers(self):
            return loop.optimizers(self.parameters(), optimisation)

    with loop.undisturbed():
        devices = 1 if device.type == "cpu" else [device.index or 0]
        shown = {"enable_progress_bar": progress, "enable_model_summary": False, "log_every_n_steps": 1}
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator=device.type,
            devices=devices,
            gradient_clip_val=optimisation.gradient_clip,
            logger=_losses_log(folder),
            enable_checkpointing=False,
            **shown,
        )
        trainer.fit(Module(), loop.batch_numbers(optimisation.steps))


def _losses_log(folder):
    """The log of the losses in a folder, if there is one."""
    if folder is None:
        return False
    from lightning.pytorch.loggers import CSVLogger

    return CSVLogger(folder, name="csv")


def _score(images):
    return sum(image.score() for image in images) / len(images)
