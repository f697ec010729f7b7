"""The kinds of connected devices: with our agent in Python (`agent`), and with nothing but a shell (`shell`)."""
