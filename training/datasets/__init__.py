"""Readers of labelled smear pictures."""
