"""Programs of ours in C, for devices without Python: sources, how they are built, and what is pushed with them."""
