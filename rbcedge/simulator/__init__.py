"""Blood smears drawn with exact truth, and a stage that moves over them."""

from rbcedge.simulator.composition import CODES, Composition
from rbcedge.simulator.fields import render_field
from rbcedge.simulator.look import Look
from rbcedge.simulator.smear import Smear
from rbcedge.simulator.view import Debris, Objects, View

__all__ = ["CODES", "Composition", "Debris", "Look", "Objects", "Smear", "View", "render_field"]
