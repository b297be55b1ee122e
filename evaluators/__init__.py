"""Evaluators, one module per measurement. Evaluators never import a method."""
