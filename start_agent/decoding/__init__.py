"""Decoding: the controller, a pure state machine that decides the next action, and the solver, its async driver."""
