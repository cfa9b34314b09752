"""What every backbone does: layers, token states, observations, reducers."""
