"""Figure of an image, its model and the residual."""

import numpy as np

__all__ = ["plot_residuals"]

# Most galaxies whose id is written, and range of the residual in sigma.
MOST_LABELS = 60
RESIDUAL_SIGMA = 5.0


def plot_residuals(observation, model, table, *, path=None):
    """Figure of data, model (with sky) and residual; galaxies of ``table`` are numbered, up to 60 of them."""
    from matplotlib.colors import AsinhNorm
    from matplotlib.figure import Figure

    from lenssr.photometry.flags import NOTICES
    from lenssr.result.plot import BAD, IMAGE_MAP, RESIDUAL_MAP, save

    data = np.where(observation.valid, observation.data, np.nan)
    sigma = observation.sigma()
    level, noise = np.nanmedian(data), float(np.median(sigma))
    norm = AsinhNorm(linear_width=3 * noise, vmin=level - 3 * noise, vmax=max(np.nanmax(data), level + noise))
    left = (data - model) / sigma
    figure = Figure(figsize=(13.5, 4.6), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    options = {"origin": "lower", "interpolation": "nearest"}
    unit = str(observation.unit) or "data"
    shown = [panel.imshow(image, norm=norm, cmap=IMAGE_MAP, **options)
             for panel, image in zip(panels, (data, model), strict=False)]  # fmt: skip
    residual = panels[2].imshow(left, cmap=RESIDUAL_MAP, vmin=-RESIDUAL_SIGMA, vmax=RESIDUAL_SIGMA, **options)
    for panel, title in zip(panels, ("data", "model", "(data - model) / sigma"), strict=True):
        panel.set_title(title, fontsize=10.5, loc="left")
        panel.set_xlabel("x (pixel)")
        panel.set_facecolor("0.62")
    panels[0].set_ylabel("y (pixel)")
    figure.colorbar(shown[1], ax=list(panels[:2]), label=unit, shrink=0.85)
    figure.colorbar(residual, ax=panels[2], label="sigma", shrink=0.85)
    for row in table[:MOST_LABELS]:
        if np.isfinite(row["x"]) and np.isfinite(row["y"]):
            panels[0].annotate(
                str(row["id"]), (row["x"], row["y"]), (6, 6), textcoords="offset points", fontsize=8,
                color="w" if not row["flags"] & ~int(NOTICES) else BAD,
            )  # fmt: skip
    if path is not None:
        save(figure, path)
    return figure
