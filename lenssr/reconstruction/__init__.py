"""From an image to its result: what each kind of source does with it, the search for a lens, the verdict."""

from lenssr.reconstruction.field_mask import auto_mask

__all__ = ["auto_mask"]
