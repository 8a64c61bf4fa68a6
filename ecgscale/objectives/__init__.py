"""Objectives: a module, its loss and its metrics."""
