"""Rollouts: a release goes onto a fleet in waves, and a device counts only when what is installed there has answered.

`plan`, `waves` and `gates` are pure; `device_run` works on one device, `engine` on all of them; `journal` remembers.
"""
