"""Releases: what a run decided to ship, in one file that names everything by hash, signed, and comparable with others.

records.py   the manifest                        bundle.py    writing a bundle, and opening it with distrust
archive.py   its canonical tar                   keys.py      Ed25519 keys: make, read, sign, verify
content.py   evidence → manifest                 history.py   runs and releases in the state folder
card.py      the model card                      diff.py      what changed between two releases
bom.py       the CycloneDX ML-BOM                series.py    one number over the runs
"""
