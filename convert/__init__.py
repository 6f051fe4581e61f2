"""From trained Keras networks to what runs at the microscope."""
