"""Which devices there are and which of them are meant: fleet files, other tools' inventories, and selectors."""
