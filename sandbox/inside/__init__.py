"""What runs inside: in the zygote and in the kernels forked from it. Imports nothing of the host's side."""
