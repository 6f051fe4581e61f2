"""Choosing calibration data and checking that small models tell the truth."""
