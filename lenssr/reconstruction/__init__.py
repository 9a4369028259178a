"""From observations to results: one module per kind of source, and what they share."""
