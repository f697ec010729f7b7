"""Implementations of `targets.meter.Meter`, one module each.

None is here yet: a measurement says `Absent("no power meter found on ...")`, and a probe lists the sensors it saw.
"""
