"""Takes snapshots of a dataset and trains image classifiers on them."""
