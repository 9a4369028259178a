"""Training networks on low-resolution images: recipes, and the objectives that physics gives."""

from lenssr.training.loop import Trained, train
from lenssr.training.objectives import (
    data_consistency,
    draw_hidden,
    lens_equation,
    lens_error,
    lens_likelihood,
    multi_scale,
    pixel_intensity,
    positive_convergence,
    source_intensity,
    source_smoothness,
    target_error,
    variation_density,
)
from lenssr.training.recipe import Hardware, Optimisation, Recipe, recipe_names

__all__ = ["Hardware", "Optimisation", "Recipe", "Trained", "data_consistency", "draw_hidden"]
__all__ += ["lens_equation", "lens_error", "lens_likelihood", "multi_scale", "pixel_intensity"]
__all__ += ["positive_convergence", "recipe_names", "source_intensity", "source_smoothness", "target_error"]
__all__ += ["train", "variation_density"]
