"""Will it fit? From a model's shape to the memory of a worker."""
