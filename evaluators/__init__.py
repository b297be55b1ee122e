"""One measurement a module. Evaluators never import a method."""
