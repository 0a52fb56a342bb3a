"""What nodes say to each other: messages, codec, topics, and the Machine interface."""
