"""Trained weights that come with the package, each with its model card; read by `checkpoints.load_model`."""
