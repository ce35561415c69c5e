"""Peers of `constraint-transfer`: how each library is used, one file each, frozen.

None reads a sealed label. Each file says how its library recommends to be used, which
of its knobs were tried and what they are now; `requirements.txt` pins the versions.
"""
