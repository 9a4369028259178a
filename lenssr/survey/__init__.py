"""Many lenses: a catalogue in, a catalogue out, on one machine or a cluster."""

from lenssr.survey.survey import Survey, SurveySummary

__all__ = ["Survey", "SurveySummary"]
