"""Measuring on a device so that the number carries its own doubt: design, statistics, validity, comparison."""
