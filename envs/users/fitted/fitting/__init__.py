"""Fitting users on logged ones: examples, losses, calibration, and the report of a fit."""
