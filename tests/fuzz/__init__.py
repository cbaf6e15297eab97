"""Damaged and hostile files for everything that mmkd reads: see docs/reliability.md.

`python -m tests.fuzz --inputs 10000 --seed 0` reads that many and prints a table. A kind of file is
a class in `pictures`, `weights` or `others`: it writes valid inputs once, damages a copy of one,
reads it through the product, and raises an AssertionError if what comes back is wrong.
"""
