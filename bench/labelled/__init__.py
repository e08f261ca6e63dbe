"""Trainings whose fault is known: how they are made, and how their fault is found without reading their curves."""
