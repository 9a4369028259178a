"""Stamps of one shape, cut from an image and fitted together."""

import numpy as np

__all__ = ["Stamps", "cut", "paste"]


def cut(plane, corners, shape, fill=0.0):
    """Boxes (B, rows, columns) of a plane, from their first pixels (B, 2) on; ``fill`` beyond its edge."""
    boxes = np.full((len(corners), *shape), fill, dtype=plane.dtype)
    for box, corner in zip(boxes, corners, strict=True):
        inside, own = _overlap(corner, shape, plane.shape)
        box[own] = plane[inside]
    return boxes


def paste(plane, corner, box):
    """Add a box (rows, columns) to a plane (ny, nx) in place, from its first pixel (row, column) on."""
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

    ``data`` and ``weight`` are (B, ny, nx): flux and inverse variance, 0 for a hidden pixel. Lengths are in
    pixels from the middle of the stamps.
    """

    def __init__(self, data, weight, operator):
        self.data, self.weight, self.operator = data.flatten(1), weight.flatten(1), operator

    def __len__(self):
        return len(self.data)

    def select(self, index):
        """The stamps numbered ``index``."""
        shape = (-1, *self.operator.shape)
        return Stamps(self.data[index].reshape(shape), self.weight[index].reshape(shape), self.operator)

    def behind(self, operator):
        """The same stamps with another operator."""
        twin = Stamps.__new__(Stamps)
        twin.data, twin.weight, twin.operator = self.data, self.weight, operator
        return twin

    def rough(self, operator):
        """The same stamps with another operator, in the precision of that operator."""
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
        """Model images (B, N) from physical vectors (B, P)."""
        image = sum(self.light(physical, block) for block in scene.lights)
        for block in [scene["sky"]] if sky and scene["sky"] else ():
            image = image + physical[:, block.slice]
        return image

    def model(self, scene, template):
        """The function for `levenberg_marquardt`; ``template`` (B, P) holds what is not free."""
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
            # The derivative of a profile by the logarithm of its amplitude is the profile.
            image = jacobian[:, [block.start for block in lights]].sum(1)
            for column, block in enumerate(skies, start=number):
                image += physical[:, block.slice]
                jacobian[:, column] = 1
            return image, jacobian

        return evaluate


def _centre(physical, block):
    """Centre of a profile, x and y, each (B, 1)."""
    return tuple(physical[:, block.start + k, None] for k in block.profile.centre)
