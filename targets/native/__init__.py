"""Programs of ours in C, for devices without Python: their sources, how they are built, and what they are pushed with."""
