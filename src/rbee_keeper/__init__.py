"""The command-line program `rbee-keeper`: the hand of the user. Talks to the queen only."""
