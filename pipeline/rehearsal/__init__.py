"""Rehearsing a run: faults by a schedule on the devices of a lab, and what came of them.

faults.yaml ─schedule→ Schedule ─draw→ planned faults ─conductor→ what happened ─verdict→ Rehearsal
"""
