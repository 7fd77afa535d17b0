"""Learning from traces: which are kept, what of them the loss sees, and the recipes that train on them."""
