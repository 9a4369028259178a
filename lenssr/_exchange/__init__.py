"""What other codes call lenses and light: their names and parameters from plain data, and back."""

__all__: list[str] = []
