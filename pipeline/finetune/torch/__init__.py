"""Fine-tuning of torch.export programs: no code of the user's is needed, and no other form of PyTorch model known.

`graph` finds kernels, normalizations and the tensors that the runtimes quantize, `layers` are put in their places.
"""
