"""What learns: losses, the training loop, masked autoencoders, the fine-tuned module, baselines."""
