"""Can a device load and run a model? Known before a byte travels.

    file → describe (needs, memory) ┐
                                    ├ judge, pure → `Fit`: fits · fits after lowering · does not fit · nobody knows
    device → probe (`Facts`)        ┘                     lower → the file for that runtime, proven to answer the same

What released runtimes can load is in limits.json, as they said themselves (docs/runtime_limits.py).
"""
