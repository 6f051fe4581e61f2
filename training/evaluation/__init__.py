"""How good networks are: the paper's measures, tables and figures, and what the paper lacks."""
