"""What runs inside the sandbox, next to the model's code; never imported by the host."""
