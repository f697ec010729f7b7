"""The stages. `run.py` puts them together; `*_jobs.py` hold what happens in the worker process."""

STAGES = (
    "export",
    "calibrate",
    "sensitivity",
    "search",
    "quantize",
    "validate",
    "package",
    "push",
    "measure",
    "gate",
    "release",
    "report",
)
