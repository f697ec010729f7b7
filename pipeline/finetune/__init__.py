"""Quantization-aware fine-tuning of Keras models: the float weights are moved to where rounding them does least harm.

All but `settings` runs in the worker process only. `folding` brings the model into the form that the converters see,
`layers` put fake quantization into it, `training` is the loop.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"  # before Keras is imported anywhere: its backend is chosen once
