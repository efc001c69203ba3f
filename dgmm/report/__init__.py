"""Pictures of mixtures, and of fits as they go on."""
