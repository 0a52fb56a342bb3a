"""The students' room on CIFAR-10: accuracy after failures, parameters and latency."""
