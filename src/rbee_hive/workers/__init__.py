"""Worker processes: started, watched, stopped, and the room for them."""
