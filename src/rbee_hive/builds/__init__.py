"""Worker builds: llama.cpp compiled for a kind of device."""
