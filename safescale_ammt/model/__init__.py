"""The model: a genome, its networks, and the predictor that answers for raw rows."""
