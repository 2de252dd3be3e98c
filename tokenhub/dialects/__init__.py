"""Translation between wire formats: values in, values out, no I/O."""
