"""One image as a function of a free-form source and of the parameters of lens, lens light and sky."""

import numpy as np
import scipy.sparse as sparse
import torch

__all__ = ["Problem"]

# Columns of the source that pass the telescope at once, to bound the memory.
COLUMNS = 256


class Problem:
    """What `lenssr.inversion.solve.solve` needs to know of an image.

    Parameters
    ----------
    stack : `~lenssr.fitting.stack.ImageStack`
        Holding the one image; its operator traces the source.
    light_stack : `~lenssr.fitting.stack.ImageStack`
        The same image with rays where the lens light is steep.
    scene : `~lenssr.fitting.scene.Scene`
        Lens, lens light and sky, without a source.
    physical : `torch.Tensor`, shape (P,)
        Parameters of the scene; the free ones are fitted.
    terms : `~lenssr.fitting.terms.Terms`
        Their priors and bounds.
    grid : `~lenssr.inversion.mapping.SourceGrid`
    weight, offset : `~numpy.ndarray`, shape (N,)
        Inverse variance, and by how much the noise shifts the expected data.
    mean : float
        Mean of the prior on the log source.
    """

    def __init__(self, stack, light_stack, scene, physical, terms, grid, weight, offset, mean):
        self.stack, self.light_stack, self.scene, self.grid = stack, light_stack, scene, grid
        self.template = physical.unsqueeze(0)
        self.data, self.weight, self.mean = stack.data[0].numpy() - offset, weight, mean
        self.parameter_prior = tuple(part[0, scene.free].numpy() for part in (terms.mean, terms.stiffness))
        self.bounds = tuple(scene.to_fit(end)[0].numpy() for end in (terms.lower, terms.upper))
        self._traced = self._normal = None

    def physical(self, parameters):
        """Physical vector (1, P) of free parameters (K,)."""
        return self.scene.to_physical(torch.as_tensor(parameters)[None], self.template)

    def linearise(self, source, parameters):
        """Model (N,), matrix (N, n) and Jacobian (N, K) at a source (n,) and free parameters (K,)."""
        physical = self.physical(parameters)
        rays, matrix = self._trace(physical)
        model = matrix @ source
        below, jacobian = self._rest(physical)
        if self.scene.lens_moves:
            jacobian[:, : self._lens_count] = self._lens_columns(source, physical, rays)
        return model + below, matrix, jacobian

    def lensed_source(self, source, parameters):
        """The source's part of the model, (N,)."""
        return self._trace(self.physical(parameters))[1] @ source

    def normal(self, matrix):
        """M^T W M of a dense matrix, kept as long as the lens stays."""
        if self._normal is None or self._normal[0] is not matrix:
            self._normal = matrix, matrix.T @ (matrix * self.weight[:, None])
        return self._normal[1]

    @property
    def _lens_count(self):
        blocks = self.scene.of_role("lens")
        return int(self.scene.free[blocks[0].slice].sum()) if blocks else 0

    def _trace(self, physical):
        """Where the rays land, and the matrix from the source to the pixels; the last answer is kept."""
        key = tuple(physical[0, : self.scene.blocks[0].stop].tolist())
        if self._traced is None or self._traced[0] != key:
            operator = self.stack.operator
            rays = [axis[0].numpy() for axis in self.scene.source_positions(operator.x, operator.y, physical)]
            self._traced = key, rays, source_matrix(self.stack, self.grid, *rays)
        return self._traced[1:]

    def _rest(self, physical):
        """Lens light and sky (N,), and the Jacobian (N, K) with empty columns for the lens."""
        stack, scene = self.light_stack, self.scene
        below = stack.image(scene, physical, roles=("lens_light", "sky"))[0].numpy()
        jacobian = np.zeros((len(below), len(scene.free_index)))
        operator, column = stack.operator, self._lens_count
        if scene.of_role("lens_light"):
            slopes = scene.light_jacobian(operator.x, operator.y, physical, cusp=stack.cusp)
            images = operator(slopes)[0].flatten(-2) * stack.factor
            jacobian[:, column : column + len(images)] = images.T.numpy()
        if scene.of_role("sky"):
            jacobian[:, -1] = 1.0
        return below, jacobian

    def _lens_columns(self, source, physical, rays):
        operator = self.stack.operator
        block = self.scene.blocks[0]
        _, _, d_x, d_y = self.scene.lens.deflection_jacobian_at(
            operator.x, operator.y, physical[:, block.slice]
        )
        keep = self.scene.free[block.slice]
        slope_x, slope_y = (torch.as_tensor(slope) for slope in self.grid.slope(source, *rays))
        moved = -(slope_x * d_x[0, keep] + slope_y * d_y[0, keep])
        return (operator(moved).flatten(-2) * self.stack.factor).T.numpy()


def source_matrix(stack, grid, x, y):
    """The map from a source to the pixels: sparse without a PSF, dense with one.

    Parameters
    ----------
    stack : `~lenssr.fitting.stack.ImageStack`
        Its operator must have the same number of rays in every pixel.
    grid : `~lenssr.inversion.mapping.SourceGrid`
    x, y : `~numpy.ndarray`, shape (R,)
        Where its rays land.

    Returns
    -------
    matrix : sparse array or `~numpy.ndarray`, shape (N, n)
    """
    operator = stack.operator
    cells = operator.cells[0] * operator.cells[1]
    rays = len(x) // cells
    share = stack.grid.pixel_area * stack.data.shape[1] / len(x) * stack.factor
    gather = sparse.csr_array(
        (np.full(len(x), share), np.arange(len(x)), np.arange(0, len(x) + 1, rays)), shape=(cells, len(x))
    )
    matrix = gather @ grid.matrix(x, y)
    if stack.kernel is None:
        return matrix
    dense = np.empty((stack.data.shape[1], grid.size))
    for start in range(0, grid.size, COLUMNS):
        part = torch.as_tensor(matrix[:, start : start + COLUMNS].toarray().T.copy())
        images = operator.convolve(part.reshape(-1, *operator.cells))
        dense[:, start : start + COLUMNS] = images.flatten(1).T.numpy()
    return dense
