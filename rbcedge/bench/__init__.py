"""How long a picture takes, from the camera to the count: measured, described, compared."""
