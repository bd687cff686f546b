"""What is decided about other machines: what they are, what they lack, what is to be done. Pure."""
