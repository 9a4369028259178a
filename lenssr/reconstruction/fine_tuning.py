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
from lenssr.options import SEARCH
from lenssr.reconstruction import decisions
from lenssr.reconstruction.network import NetworkReconstruction, subtract_foreground
from lenssr.training import Optimisation, data_consistency, draw_hidden, lightning_tools
from lenssr.training.data import ORDER_STREAM, hidden_pixel_generator

__all__ = ["TrainingImage", "check_method", "fine_tune", "training_of"]

# Shares of the pixels: held back from all steps, to test what came of them; hidden in one step.
HELD, HIDDEN = 0.1, 0.3
TASK, LABEL = "own images", ", trained on own images"
NOTES = (
    "Trained further on a user's own images. Scores are chi2 per pixel of a tenth of their pixels, which the "
    "network was never shown nor trained towards; lens, lens light and sky were fitted to all pixels."
)


class TrainingImage:
    """An image with its lens, lens light and sky, for a network that is being trained.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
        Holding the one image.
    prediction : `~lenssr.reconstruction.network.Prediction`
    network : `~lenssr.networks.RelensingNetwork`
        The one in training.
    held : `torch.Generator`
        Chooses the pixels that are held back.
    """

    def __init__(self, stack, prediction, network, held):
        self.stack, self.foreground, self.seen = stack, prediction.foreground, prediction.seen
        self.predictor = copy.copy(prediction.predictor)
        self.predictor.network = network
        self.data = stack.data.reshape(1, *stack.grid.shape)
        self.held = draw_hidden(self.data, HELD, held)

    def loss(self, generator):
        """Miss of pixels that are hidden for one step, those held back hidden too and not counted.

        Parameters
        ----------
        generator : `torch.Generator`

        Returns
        -------
        loss : `torch.Tensor`, scalar
            Of `~lenssr.training.data_consistency`.
        """
        hidden = draw_hidden(self.data, HIDDEN, generator) & ~self.held
        return self._miss(hidden | self.held, hidden)

    @torch.no_grad()
    def score(self):
        """Miss of the pixels that are held back.

        Returns
        -------
        score : float
        """
        return float(self._miss(self.held, self.held))

    def _miss(self, hidden, counted):
        image, variance = subtract_foreground(self.stack, self.foreground, hidden)
        lensed = self.predictor.lensed(*self.predictor(image, variance.masked_fill(hidden, torch.inf)))
        expected = self.stack.moments(lensed + self.foreground)[0].reshape(self.data.shape)
        return data_consistency(expected, self.data, variance * self.stack.factor**2, counted)


def fine_tune(method, observations, names, lenses, *, steps, learning_rate, folder, progress):
    """Train the network of a resolver further.

    Parameters
    ----------
    method : `~lenssr.reconstruction.network.NetworkReconstruction`
        Which stays as it is.
    observations : list of `~lenssr.imaging.Observation`
    names : list of str
        Of the images, for messages.
    lenses : list of `~lenssr.mass.MassModel` or None
        One for each; None: as the settings of the method have it.
    steps, learning_rate, folder, progress
        As of `~lenssr.SuperResolver.fine_tune`.

    Returns
    -------
    method : `~lenssr.reconstruction.network.NetworkReconstruction`
        With the network that was trained, alone.

    Raises
    ------
    InputError
        If a lens or an option has no meaning, Lightning is not installed, or the training diverges.
    """
    settings = method.settings
    optimisation = Optimisation(
        steps=steps,
        batch_size=1,
        learning_rate=learning_rate,
        warmup=steps // 10 if isinstance(steps, int) else 0,
        check_every=steps,
        seed=int(settings.seed),
    )
    lightning = lightning_tools.import_lightning()
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
    card = Card(
        recipe={
            "task": TASK,
            "start": start.origin,
            "objectives": {"hidden_pixels": 1.0},
            "hidden": HIDDEN,
            "held_back": HELD,
            "images": len(images),
            "optimisation": {"steps": steps, "learning_rate": learning_rate},
        },
        seed=optimisation.seed,
        device=lightning_tools.device_name(device),
        minutes=(time.monotonic() - began) / 60,
        steps=steps,
        scores={"hidden_pixels_before": before, "hidden_pixels": after},
        limits=_limits([image.seen for image in images]),
        notes=NOTES,
    )
    if folder is not None:
        save_weights(network, Path(folder) / "source.safetensors", card)
    name = start.name.removesuffix(LABEL) + LABEL
    return NetworkReconstruction(settings, [TrainedNetwork(name, network, card, checksum_of(network))])


def check_method(method):
    """Refuse a method whose network draws no source.

    Parameters
    ----------
    method : object
        Of a resolver.

    Raises
    ------
    InputError
        If it is no `~lenssr.reconstruction.network.NetworkReconstruction`.
    """
    if isinstance(method, NetworkReconstruction):
        return
    kind = method.settings.kind
    what = "an SISR, which knows no lens" if kind == "network" else "no network"
    raise InputError(
        f"source = {method.settings.source!r} is {what}: fine_tune() trains what draws a source, give "
        f"source='network' or the weights of a {RelensingNetwork.kind}"
    )


def training_of(method):
    """The card of a network that `fine_tune` has trained.

    Parameters
    ----------
    method : object
        Of a resolver.

    Returns
    -------
    card : `~lenssr.networks.Card` or None
        None if none was.
    """
    cards = [known.card for known in getattr(method, "networks", [])]
    return next((card for card in cards if card.recipe.get("task") == TASK), None)


def _prepared(method, observations, names, lenses, progress):
    """The network to begin with, its twin to be trained, and the images before that."""
    start = network = None
    images = []
    entries = tqdm(
        zip(observations, names, lenses, strict=True), "preparing", len(names), disable=not progress
    )
    for number, (observation, name, lens) in enumerate(entries):
        own = method if start is None else NetworkReconstruction(method.settings, [start])
        try:
            if lens is not None:
                settings = replace(method.settings, lens=lens, fit_lens=False, start=SEARCH)
                own = NetworkReconstruction(settings, own.networks)
            stack, scene, (fit,) = own.begin([observation])
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        prediction = own.predict(stack, scene, fit, observation)
        if start is None:
            start = prediction.known
            network = copy.deepcopy(start.network).train().requires_grad_(True)
        images.append(
            TrainingImage(
                stack, prediction, network, hidden_pixel_generator(method.settings.seed, -1 - number)
            )
        )
    return start, network, images


def _teach(lightning, network, images, optimisation, device, folder, progress):
    """Take the steps, one image in each, gone through again and again in another order."""

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
            return lightning_tools.optimizers(self.parameters(), optimisation)

    with lightning_tools.quiet(), lightning_tools.own_interrupts():
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator=device.type,
            devices=1 if device.type == "cpu" else [device.index or 0],
            gradient_clip_val=optimisation.gradient_clip,
            logger=_log(folder),
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
        )
        trainer.fit(Module(), lightning_tools.numbers(optimisation.steps))


def _log(folder):
    """The log of the losses, if a folder is to hold it."""
    if folder is None:
        return False
    from lightning.pytorch.loggers import CSVLogger

    return CSVLogger(folder, name="csv")


def _score(images):
    return sum(image.score() for image in images) / len(images)


def _limits(seen):
    return {name: [min(one[name] for one in seen), max(one[name] for one in seen)] for name in seen[0]}
