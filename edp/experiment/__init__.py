"""Makes a configuration into trained networks."""
