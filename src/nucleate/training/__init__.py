"""Training: tasks, losses and trainers. Generation and prediction never import it."""
