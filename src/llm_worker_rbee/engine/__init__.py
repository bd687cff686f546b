"""llama.cpp: the only package that imports it. Everything here runs in the engine thread unless it says otherwise."""
