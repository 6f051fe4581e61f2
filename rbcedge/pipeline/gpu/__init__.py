"""The kernels and the drivers that run them; see docs/gpu.md."""
