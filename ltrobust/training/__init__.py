"""The order of training: steps, chunks of steps, the loop, checkpoints, devices, optimizers, teachers."""
