"""Layers that the models share: maths is in functions of arrays, modules hold weights."""
