"""One neural network over devices, an edge and the cloud."""
