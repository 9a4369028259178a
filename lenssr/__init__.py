"""Super-resolution of strong gravitational lenses with the physics of lensing."""
