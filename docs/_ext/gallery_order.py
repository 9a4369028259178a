"""The order of the gallery: first what most people come for."""

ORDER = (
    "real_lens super_resolve bands known_lens_batch your_own_network photometry_of_a_field posterior "
    "curves_and_images survey archive_files publication_figure coolest simulation deflection"
).split()


def position(filename):
    return ORDER.index(filename.removeprefix("plot_").removesuffix(".py"))
