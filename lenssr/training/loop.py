"""Training with Lightning."""

import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.data import DataLoader

from lenssr._files import atomic, local_path, read_text, sweep
from lenssr._quiet import same_environment
from lenssr._tensors import usual_torch
from lenssr._yaml import read_yaml
from lenssr.exceptions import InputError
from lenssr.networks.weights import Card, save_weights
from lenssr.simulation import LensBatch
from lenssr.training.checkpoints import BEFORE, CHECKPOINT_FOLDER, LAST, is_whole, whole_checkpoints
from lenssr.training.data import Prefetcher, Schedule, View, hidden_pixel_generator, training_ranges
from lenssr.training.recipe import MOST_RECIPE_BYTES, Optimisation, Recipe, check_keys
from lenssr.training.tasks import batch_psnr, weighted_sum

log = logging.getLogger(__name__)

WEIGHTS_FOLDER, RECIPE_FILE = "weights", "recipe.yaml"
# Warnings of Lightning on intended choices: batches are made on the device, in a thread of their own.
REMARKS = (
    ".*(does not have many workers|smaller than the logging interval|GPU available but not used"
    "|Checkpoint directory .* exists and is not empty|torch.jit.script|isinstance.treespec, LeafSpec)"
)


@dataclass(eq=False, repr=False)
class Trained:
    """Result of a training.

    Attributes
    ----------
    task : `torch.nn.Module`
        The trained task, with the weights of the best validation; ``task.networks`` are its networks.
    recipe : `Recipe`
    folder : `~pathlib.Path`
    scores : dict of str to float
        Scores of that validation: the loss, its parts, and ``psnr`` (T in dB) where images are predicted.
    steps : int
        Number of steps.
    minutes : float
        Duration, resumed parts together.
    device : str
        Name of the device.
    is_first : bool
        Whether this is the first of the processes that trained together, which writes the files.
    """

    task: torch.nn.Module
    recipe: Recipe
    folder: Path
    scores: dict[str, float]
    steps: int
    minutes: float
    device: str
    is_first: bool = True

    def __repr__(self) -> str:
        return f"<Trained {self.recipe.task}: {self.steps} steps, {self._scores_text()}>"

    def _scores_text(self) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())

    def save(self) -> dict[str, Path]:
        """Write the networks with their cards as ``weights/NAME.safetensors``; return their paths."""
        folder = self.folder / WEIGHTS_FOLDER
        folder.mkdir(exist_ok=True)
        card = Card(
            recipe=self.recipe.to_dict(),
            seed=self.recipe.optimisation.seed,
            device=self.device,
            minutes=self.minutes,
            steps=self.steps,
            scores=self.scores,
            limits=training_ranges(self.recipe.datasets("data")),
        )
        networks: dict[str, Any] = dict(self.task.named_children())
        paths = {name: folder / f"{name}.safetensors" for name in networks}
        for name, network in networks.items():
            save_weights(network, paths[name], card)
        return paths

    def summary(self) -> str:
        """Describe it in a few lines."""
        lines = {
            "task": self.recipe.task,
            "steps": self.steps,
            "validation": self._scores_text(),
            "took": f"{self.minutes:.1f} minutes on {self.device}",
            "folder": self.folder,
        }
        return "\n".join(f"{name:15}{value}" for name, value in lines.items())


def train(
    recipe: Recipe | str | Path, folder: str | Path, *, resume: bool = False, progress: bool = False
) -> Trained:
    """Train the network of a recipe.

    Parameters
    ----------
    recipe : `Recipe`, str or `~pathlib.Path`
        A recipe, its file, or its name.
    folder : str or `~pathlib.Path`
        Where weights with their cards, checkpoints, logs (CSV and TensorBoard) and the recipe are written.
    resume : bool, optional
        Whether to continue from the last checkpoint in the folder, with the same recipe: the result is that
        of an uninterrupted training, on a CPU to the last bit. Default False.
    progress : bool, optional
        Whether to show a progress bar; False by default.

    Raises
    ------
    InputError
        If Lightning is not installed; if the folder holds a training and ``resume`` is False, or no training
        or one by another recipe and ``resume`` is True.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    folder = local_path(folder, "folder")
    lightning = import_lightning()
    last = _check_folder(recipe, folder, resume)
    task, optimisation = recipe.build(), recipe.optimisation
    schedule = Schedule(recipe.datasets("data"), optimisation.batch_size, optimisation.seed)
    with usual_torch(), undisturbed(recipe.hardware.threads), Prefetcher(schedule) as batches:
        trainer = _trainer(lightning, recipe, folder, progress)
        module = _module(lightning, task, recipe, batches)
        options = {"ckpt_path": str(last), "weights_only": True} if last is not None else {}
        if trainer.is_global_zero:
            verb = "resuming" if resume else "training"
            log.info("%s %s, %d steps, in %s", verb, recipe.task, optimisation.steps, folder)
        trainer.fit(module, batch_numbers(optimisation.check_every), batch_numbers(1), **options)
    best = next(c for c in trainer.checkpoint_callbacks if c.monitor)
    state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
    scores = {name.removeprefix("val_"): float(value) for name, value in state["scores"].items()}
    trained = Trained(
        task=task.eval().cpu(),
        recipe=recipe,
        folder=folder,
        scores=scores,
        steps=trainer.global_step,
        minutes=module.seconds_so_far() / 60,
        device=device_name(trainer.strategy.root_device),
        is_first=trainer.is_global_zero,
    )
    if trained.is_first:
        trained.save()
        log.info("best validation: %s", trained._scores_text())
    return trained


def _check_folder(recipe: Recipe, folder: Path, resume: bool) -> Path | None:
    """Make the folder, or find the checkpoint to resume: the last, or the one before if that is damaged."""
    known = folder / RECIPE_FILE
    text = yaml.safe_dump(recipe.to_dict(), sort_keys=False)
    kept = [folder / CHECKPOINT_FOLDER / name for name in (LAST, BEFORE)]
    if not resume:
        if any(path.exists() for path in kept):
            raise InputError(f"{folder} holds a training already: resume it, or name another folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made ({error.strerror}): give another folder") from error
        with atomic(known) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return None
    if not any(path.exists() for path in kept) or not known.exists():
        raise InputError(f"{folder} holds no checkpoint to resume: start without resuming")
    before, now = (read_yaml(one, str(known)) for one in (read_text(known, MOST_RECIPE_BYTES), text))
    check_keys(str(known), before)
    # Only the hardware may change.
    changed = [name for name in now if name != "hardware" and now[name] != before.get(name)]
    if changed:
        raise InputError(f"{', '.join(changed)} differ from {known}: resume with it, or start elsewhere")
    sweep(folder / CHECKPOINT_FOLDER)
    sweep(folder / WEIGHTS_FOLDER)
    whole = next((path for path in kept if is_whole(path)), None)
    if whole is None:
        raise InputError(f"the checkpoints in {folder} are damaged: start anew in another folder")
    return whole


def _trainer(lightning: Any, recipe: Recipe, folder: Path, progress: bool) -> Any:
    from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    optimisation, hardware = recipe.optimisation, asdict(recipe.hardware)
    hardware.pop("threads")
    place: dict[str, Any] = {"dirpath": folder / CHECKPOINT_FOLDER, "enable_version_counter": False}
    # Save at the end of an epoch, from where a training resumes without repeating a step.
    place["save_on_train_epoch_end"] = True
    callbacks = [
        ModelCheckpoint(**place, filename="best", monitor="val_loss"),
        # Saved after the best one, which it refers to.
        ModelCheckpoint(**place, filename=Path(LAST).stem, save_top_k=1, monitor=None),
        LearningRateMonitor("step"),
    ]
    if optimisation.patience is not None:
        callbacks.append(EarlyStopping("val_loss", patience=optimisation.patience))
    loggers = [CSVLogger(folder, name="csv"), TensorBoardLogger(folder, name="tensorboard")]
    return lightning.Trainer(
        plugins=[whole_checkpoints()],
        # Counted in epochs, since Lightning resumes a training counted in steps inside the last one.
        max_epochs=optimisation.steps // optimisation.check_every,
        **hardware,
        gradient_clip_val=optimisation.gradient_clip,
        use_distributed_sampler=False,
        callbacks=callbacks,
        logger=loggers,
        log_every_n_steps=min(10, optimisation.check_every),
        num_sanity_val_steps=0,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )


def _module(lightning: Any, task: Any, recipe: Recipe, batches: Prefetcher) -> Any:
    """The task as a LightningModule."""
    optimisation = recipe.optimisation
    held_back = Schedule(recipe.datasets("validation"), optimisation.batch_size, optimisation.seed).batches()
    weights = {name: float(weight) for name, weight in recipe.objectives.items() if weight}

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.task = task
            self._seconds, self._began = 0.0, time.monotonic()

        def seconds_so_far(self) -> float:
            return self._seconds + time.monotonic() - self._began

        def _view(self, batch: LensBatch, number: int) -> View:
            return self.task.view(batch, hidden_pixel_generator(optimisation.seed, number))

        def training_step(self, _: int) -> torch.Tensor:
            # The batch depends on the number of the step only, so that a resumed training is the same.
            stride = self.trainer.world_size
            number = self.global_step * stride + self.global_rank
            view = self._view(batches(number, self.device, after=number + stride), number)
            total, parts = weighted_sum(self.task.losses(view), weights)
            self.log("loss", total.detach(), prog_bar=True)
            self.log_dict({"seconds": batches.seconds, "waited": batches.waited})
            self.log_dict(parts)
            return total

        def validation_step(self, _: int) -> None:
            found = [(len(chosen[1]), self._score(chosen, -1 - n)) for n, chosen in enumerate(held_back)]
            count = sum(size for size, _ in found)
            means = {name: sum(size * score[name] for size, score in found) / count for name in found[0][1]}
            self.last_scores = {f"val_{name}": float(value) for name, value in means.items()}
            self.log_dict(self.last_scores, prog_bar=True, sync_dist=True, batch_size=count)

        def _score(self, chosen: Any, number: int) -> dict[str, torch.Tensor]:
            view = self._view(batches.make(chosen, self.device), number)
            total, parts = weighted_sum(self.task.losses(view), weights)
            scores = {"loss": total, **parts}
            image = self.task.predict(self.task.view(view.batch, None))
            if image is not None:
                scores["psnr"] = batch_psnr(image, view.batch.truth).mean()
            return scores

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["scores"], checkpoint["seconds"] = dict(self.last_scores), self.seconds_so_far()

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self._seconds, self._began = checkpoint["seconds"], time.monotonic()

        def configure_optimizers(self) -> dict[str, Any]:
            return optimizers(self.parameters(), optimisation)

    return Module()


def import_lightning() -> Any:
    """Import Lightning, which changes environment and warnings, or say which extra holds it."""
    try:
        with same_environment():
            import lightning.pytorch as lightning
    except ImportError as error:
        raise InputError("training needs Lightning: pip install 'lenssr[train]'") from error
    return lightning


def batch_numbers(count: int) -> DataLoader:
    """Loader of batch numbers only: batches are simulated on the device where they are used."""
    return DataLoader(range(count), batch_size=None)  # type: ignore[arg-type]  # any sequence will do


@contextmanager
def undisturbed(threads: int | None = None) -> Iterator[None]:
    """Run Lightning without its remarks on intended choices, on a number of cores (None: no change).

    Afterwards restore cores, levels of loggers and interrupts, which Lightning turns into an exit.
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels, cores = [logger.level for logger in loggers], torch.get_num_threads()
    derivatives = torch.is_grad_enabled()
    on_interrupt = signal.getsignal(signal.SIGINT)
    torch.set_num_threads(threads or cores)
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with same_environment():
            warnings.filterwarnings("ignore", REMARKS)
            yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        torch.set_num_threads(cores)
        torch.set_grad_enabled(derivatives)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)


def device_name(device: torch.device) -> str:
    """Name of a device for cards."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def optimizers(parameters: Iterable[torch.nn.Parameter], optimisation: Optimisation) -> dict[str, Any]:
    """Optimizer and learning rate of each step, in the form of Lightning."""
    rate, decay = optimisation.learning_rate, optimisation.weight_decay
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, optimisation.rate)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
