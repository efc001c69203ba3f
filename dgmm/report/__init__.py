"""Pictures of mixtures."""
