"""The code that runs inside the sandbox, in the zygote and its kernels. Imports nothing from the host side."""
