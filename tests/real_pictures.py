"""Where the real pictures lie that some tests look at. Without them these tests are left out, or look at drawn ones."""

from __future__ import annotations

import os
from pathlib import Path

#: Holds chula-rbc-12 and chula-rbc-diseases. The environment variable RBCEDGE_DATA says where.
DATA = Path(os.environ.get("RBCEDGE_DATA") or Path(__file__).parents[2] / "shared" / "data")
