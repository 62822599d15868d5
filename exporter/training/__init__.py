"""Training: rows of questions and passages -> batches -> the papers' loss -> a checkpoint, by a recipe."""
