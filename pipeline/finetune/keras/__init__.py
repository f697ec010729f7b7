"""Fine-tuning of Keras 3 models, in TensorFlow.

`folding` brings the model into the form that the converters see, `layers` put fake quantization into it.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"  # before Keras is imported anywhere: its backend is chosen once
