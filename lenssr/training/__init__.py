"""Training networks on low-resolution images: the objectives that physics gives."""

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

__all__ = [
    "data_consistency",
    "draw_hidden",
    "lens_equation",
    "lens_error",
    "lens_likelihood",
    "multi_scale",
    "pixel_intensity",
    "positive_convergence",
    "source_intensity",
    "source_smoothness",
    "target_error",
    "variation_density",
]
