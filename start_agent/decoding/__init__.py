"""The pure state machine that decides what happens next, and the async driver around it."""
