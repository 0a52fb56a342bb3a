"""Distillation of one network into students, each of which gives one portion of its features."""
