"""What a trained model does with fewer tokens."""
