"""Steps that several methods of node classification share."""
