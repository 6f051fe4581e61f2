"""Pictures and reports made from results."""
