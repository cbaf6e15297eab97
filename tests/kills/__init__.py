"""Trainings that are killed at any moment and resumed: see docs/reliability.md.

`python -m tests.kills --kills 50 --seed 0` kills that many and prints a table. Trainings and what
they are made of are in `trainings` and `parts`, the moment of a kill in `aims`, starting, killing
and resuming in `run`, what must be equal in the end in `equality`.
"""
