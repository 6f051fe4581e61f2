"""Blood smears drawn with exact truth, and a stage that moves over them."""

from rbcedge.simulator.composition import CODES, Composition
from rbcedge.simulator.fields import render_field
from rbcedge.simulator.look import Look
from rbcedge.simulator.smear import Smear
from rbcedge.simulator.stage import PROGRAMS, Pose, Stage, program, whole_ids
from rbcedge.simulator.view import Debris, Objects, View

__all__ = [
    "CODES",
    "PROGRAMS",
    "Composition",
    "Debris",
    "Look",
    "Objects",
    "Pose",
    "Smear",
    "Stage",
    "View",
    "program",
    "render_field",
    "whole_ids",
]
