"""The wire: what the four programs say to each other and to applications, with units and bounds in the fields."""
