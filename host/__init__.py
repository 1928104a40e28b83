"""The only door to the world: clock, identifiers, entropy, files, network, threads."""
