"""Calibration: time, memory, exactness and int8 answers, against onnxruntime and ai-edge-quantizer."""
