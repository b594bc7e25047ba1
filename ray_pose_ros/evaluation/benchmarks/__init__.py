"""What `ray-pose benchmark` measures, one section a module; all return plain numbers for JSON."""
