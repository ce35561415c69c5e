"""How the plan of the code is counted: one module per kind of count."""
