"""Calibration and test data: sources, declared preprocessing, and the checks every sample passes first."""

from .sample import Sample
from .sample_set import SampleSet, check_disjoint, first_arrays, open_samples
from .spec import DataSection, DataSpec

__all__ = ["DataSection", "DataSpec", "Sample", "SampleSet", "check_disjoint", "first_arrays", "open_samples"]
