"""Stamps of one shape, cut from an image and fitted together."""

import numpy as np

__all__ = ["Stamps", "cut", "paste"]


def cut(plane, corners, shape, fill=0.0):
    """Cut boxes of one shape from an image; what lies beyond its edge is filled.

    Parameters
    ----------
    plane : `~numpy.ndarray`, shape (ny, nx)
    corners : `~numpy.ndarray` of int, shape (B, 2)
        First row and column of each box, which may lie outside.
    shape : tuple of int
        Rows and columns of the boxes.
    fill : float, optional
        By default 0.

    Returns
    -------
    boxes : `~numpy.ndarray`, shape (B, rows, columns)

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.photometry.cutouts import cut
    >>> cut(np.arange(6.0).reshape(2, 3), np.array([[-1, 0]]), (2, 2)).tolist()
    [[[0.0, 0.0], [0.0, 1.0]]]
    """
    boxes = np.full((len(corners), *shape), fill, dtype=plane.dtype)
    for box, corner in zip(boxes, corners, strict=True):
        inside, own = _overlap(corner, shape, plane.shape)
        box[own] = plane[inside]
    return boxes


def paste(plane, corner, box):
    """Add a box to an image in place, as far as it lies within.

    Parameters
    ----------
    plane : `~numpy.ndarray`, shape (ny, nx)
    corner : tuple of int
        First row and column of the box, which may lie outside.
    box : `~numpy.ndarray`, shape (rows, columns)
    """
    inside, own = _overlap(corner, box.shape, plane.shape)
    plane[inside] += box[own]


def _overlap(corner, shape, limits):
    """Slices of an image and of a box in which they overlap."""
    inside, own = [], []
    for start, size, limit in zip(corner, shape, limits, strict=True):
        low, high = max(start, 0), min(start + size, limit)
        inside.append(slice(low, max(low, high)))
        own.append(slice(low - start, max(low, high) - start))
    return tuple(inside), tuple(own)


class Stamps:
    """B stamps with their weights, and the operator that makes their model images.

    Lengths are in pixels, from the middle of the stamps.

    Parameters
    ----------
    data, weight : `torch.Tensor`, shape (B, ny, nx)
        Flux and inverse variance; 0 hides a pixel.
    operator : `~lenssr.imaging.cusp_operator.CentredOperator`
    """

    def __init__(self, data, weight, operator):
        self.data, self.weight, self.operator = data.flatten(1), weight.flatten(1), operator

    def __len__(self):
        return len(self.data)

    def select(self, index):
        """Some of the stamps."""
        shape = (-1, *self.operator.shape)
        return Stamps(self.data[index].reshape(shape), self.weight[index].reshape(shape), self.operator)

    def behind(self, operator):
        """The same stamps with another operator."""
        twin = Stamps.__new__(Stamps)
        twin.data, twin.weight, twin.operator = self.data, self.weight, operator
        return twin

    def rough(self, operator):
        """The same stamps in the precision of another operator."""
        twin, kind = self.behind(operator), operator.x.dtype
        twin.data, twin.weight = self.data.to(kind), self.weight.to(kind)
        return twin

    def light(self, physical, block):
        """Image (b, N) of one profile."""
        centre = _centre(physical, block)
        x, y, share = self.operator.rays(*centre)
        value = block.profile.brightness(x, y, physical[:, block.slice]).unsqueeze(1)
        return self.operator.convolve(self.operator.collect(value, *centre, share))[:, 0].flatten(1)

    def image(self, scene, physical, *, sky=True):
        """Model images.

        Parameters
        ----------
        scene : `~lenssr.model.scene.Scene`
            Without a lens, its light that of the lens.
        physical : `torch.Tensor`, shape (B, P)
        sky : bool, optional
            Whether the sky is in them, by default it is.

        Returns
        -------
        image : `torch.Tensor`, shape (B, N)
        """
        image = sum(self.light(physical, block) for block in scene.lights)
        for block in [scene["sky"]] if sky and scene["sky"] else ():
            image = image + physical[:, block.slice]
        return image

    def model(self, scene, template):
        """The function that `~lenssr.model.least_squares.levenberg_marquardt` fits.

        Parameters
        ----------
        scene : `~lenssr.model.scene.Scene`
        template : `torch.Tensor`, shape (B, P)
            Physical vectors: the parameters that are not free.

        Returns
        -------
        model : callable
        """
        operator, lights, skies = self.operator, scene.lights, [scene["sky"]] if scene["sky"] else []
        number = lights[-1].stop

        def evaluate(fit, index):
            physical = scene.to_physical(fit, template[index]).to(operator.x)
            jacobian = physical.new_empty(len(fit), number + len(skies), self.data.shape[1])
            for block in lights:
                centre = _centre(physical, block)
                x, y, share = operator.rays(*centre)
                cells = operator.collect(scene.light_derivatives(block, x, y, physical)[3], *centre, share)
                part = jacobian[:, block.slice].unflatten(2, operator.shape)
                part.copy_(operator.convolve(cells))
            # The derivative by the logarithm of its amplitude is a profile itself.
            image = jacobian[:, [block.start for block in lights]].sum(1)
            for column, block in enumerate(skies, start=number):
                image += physical[:, block.slice]
                jacobian[:, column] = 1
            return image, jacobian

        return evaluate


def _centre(physical, block):
    """Centre of a profile, x and y, each (B, 1)."""
    return tuple(physical[:, block.start + k, None] for k in block.profile.centre)
