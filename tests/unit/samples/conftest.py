"""Property tests here touch files and pictures: their first run is slow on a busy machine, which is no failure."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
