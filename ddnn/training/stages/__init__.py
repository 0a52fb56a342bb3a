"""Stages of pipeline training in Keras; see README.md of ddnn/training."""
