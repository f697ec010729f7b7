"""The precision of every op, chosen to an accuracy target.

ops          what a model's ops are, and how they are grouped into blocks       (litert_ops, onnx_ops read them)
sensitivity  how much each block loses, ranked                                  (pure)
strategy     which mixes to try next, and which one to take                     (pure)
testing      when enough samples were seen to reject a mix                      (pure)
jobs         what runs in the worker: probing a block, judging a mix
evaluation   asks those jobs and the device
"""
