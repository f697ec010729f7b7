"""Export, calibrate and quantize the five LiteRT recipes, against the bare converter calls: at most 1.2 times as long.

Both sides are whole processes, imports included, in turns: `pipeline_side` runs our steps in a new state folder,
`bare_side` is the script one would write by hand for the same five files.
"""
