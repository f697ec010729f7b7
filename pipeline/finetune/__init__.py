"""Quantization-aware fine-tuning: the float weights are moved to where rounding them does least harm.

`training` is the loop, `memory` says what it will take; `keras` and `torch` make a model into the `Network` it trains.
All but `settings` runs in the worker process only.
"""
